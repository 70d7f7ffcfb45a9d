//! The README's compatibility table, which `make compatibility` writes from what the matrix saw.

use crate::refusals::REFUSALS;

const README: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));

#[test]
fn the_table_of_the_readme_has_only_running_and_what_runtimes_refuse() {
    let table = README
        .split_once("<!-- compatibility -->")
        .and_then(|(_, rest)| rest.split_once("<!-- /compatibility -->"))
        .map(|(table, _)| table)
        .expect("the README has a table between its two marks");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|--"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    // The notes are a numbered list of what runtimes said.
    let notes: Vec<&str> = table
        .lines()
        .filter_map(|line| {
            line.split_once(". ")
                .filter(|(n, _)| n.parse::<u8>().is_ok())
        })
        .map(|(_, note)| note)
        .collect();
    for runtime in ["runc", "crun", "youki"] {
        assert!(
            rows.iter().any(|row| row[0].contains(runtime)),
            "{runtime} is not in the table: make compatibility"
        );
    }
    for note in &notes {
        assert!(
            REFUSALS
                .iter()
                .any(|refusal| refusal.cell().ends_with(note)),
            "no runtime's own refusal: {note}"
        );
    }
    for row in &rows[1..] {
        for cell in &row[4..] {
            let text = cell.split(" [").next().unwrap_or_default();
            let is_note = |cell: &str| (1..=notes.len()).any(|n| cell.ends_with(&format!("[{n}]")));
            assert!(
                ["running", "–"].contains(cell)
                    || is_note(cell) && (text == "running" || cell.starts_with('[')),
                "neither running nor a runtime's own refusal: {cell} of {row:?}"
            );
        }
    }
}
