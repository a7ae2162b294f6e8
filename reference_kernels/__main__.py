"""`python -m reference_kernels list | run | bench | simulate | readme`: the units without the rest of the atlas."""

from reference_kernels.cli import app

if __name__ == "__main__":
    app(prog_name="reference_kernels")
