"""The files that people write: papers, the vocabulary, what is out of scope. Read, checked, and written back."""
