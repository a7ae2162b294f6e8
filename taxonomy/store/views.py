"""Views of the store, for people who ask it in SQL, and the table of its full-text search."""

VIEWS = {
    "paper_list": """
        SELECT p.id, p.title, p.name, p.published,
               (SELECT group_concat(name, '; ') FROM (SELECT a.name FROM authorship s
                JOIN author a ON a.id = s.author_id WHERE s.paper_id = p.id ORDER BY s.position)) AS authors,
               v.key || ' ' || p.venue_year AS venue, p.award,
               (SELECT group_concat(leaf_code, ' ') FROM (SELECT leaf_code FROM placement
                WHERE paper_id = p.id AND role = 'primary' ORDER BY position)) AS primary_leaves,
               (SELECT group_concat(leaf_code, ' ') FROM (SELECT leaf_code FROM placement
                WHERE paper_id = p.id AND role = 'secondary' ORDER BY position)) AS secondary_leaves,
               (SELECT url FROM link WHERE paper_id = p.id AND kind = 'paper') AS paper_url,
               (SELECT url FROM link WHERE paper_id = p.id AND kind = 'code') AS code_url
        FROM paper p LEFT JOIN venue v ON v.code = p.venue_code
        ORDER BY p.published DESC, p.id""",
    "placement_list": """
        SELECT l.paper_id, p.title, p.published, b.dimension_code AS dimension, b.code AS behavior, l.leaf_code AS leaf,
               l.role, CASE l.role WHEN 'primary' THEN 1.0 ELSE 0.5 END AS weight,
               l.technique_en, l.technique_zh, l.why, l.source, l.note
        FROM placement l JOIN paper p ON p.id = l.paper_id JOIN leaf f ON f.code = l.leaf_code
        JOIN behavior b ON b.code = f.behavior_code
        ORDER BY p.published DESC, p.id, l.position""",
    "leaf_count": """
        SELECT f.code, f.label_en AS label, count(DISTINCT CASE WHEN l.role = 'primary' THEN l.paper_id END) AS papers,
               count(DISTINCT CASE WHEN l.role = 'secondary' THEN l.paper_id END) AS secondary_papers
        FROM leaf f LEFT JOIN placement l ON l.leaf_code = f.code GROUP BY f.code ORDER BY f.position""",
    "behavior_count": """
        SELECT b.code, b.label_en AS label, count(DISTINCT CASE WHEN l.role = 'primary' THEN l.paper_id END) AS papers,
               count(DISTINCT l.paper_id) AS papers_with_secondary
        FROM behavior b JOIN leaf f ON f.behavior_code = b.code LEFT JOIN placement l ON l.leaf_code = f.code
        GROUP BY b.code ORDER BY b.position""",
    "dimension_count": """
        SELECT d.code, d.label_en AS label, count(DISTINCT l.paper_id) AS papers
        FROM dimension d JOIN behavior b ON b.dimension_code = d.code JOIN leaf f ON f.behavior_code = b.code
        LEFT JOIN placement l ON l.leaf_code = f.code AND l.role = 'primary' GROUP BY d.code ORDER BY d.position""",
    "venue_count": """
        SELECT v.key AS venue, p.venue_year AS year, v.community_code AS community, count(*) AS papers
        FROM paper p JOIN venue v ON v.code = p.venue_code GROUP BY v.code, p.venue_year
        ORDER BY papers DESC, venue, year""",
    "month_count": """
        SELECT substr(published, 1, 7) AS month, count(*) AS papers FROM paper GROUP BY month ORDER BY month""",
}

# Full-text index. Its rowid is the paper's. English words are stemmed; `zh` holds Chinese text with a space around each
# character, so that a phrase of characters finds any run of them (`taxonomy.store.search` writes such queries).
SEARCH_TABLE = """
CREATE VIRTUAL TABLE paper_search USING fts5(
    title, name, authors, techniques, summary, labels, zh, tokenize = 'porter unicode61 remove_diacritics 2')"""
