//! Tidiness as an ordinary test: what may import what, how long files and functions may be, what
//! every file must open with, and that the documents name things that exist.
//!
//! Each check is a pure function from files to complaints, and is tested on a planted fault beside
//! its definition: a check that cannot fail checks nothing. An exception stands in a table with its
//! reason, and must go when it is no longer needed.

mod imports;
mod links;
mod map;
mod size;
mod tree;
mod words;

use tree::Tree;

/// Fails with every complaint, one a line.
#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn imports_run_one_way() {
    assert_none(&imports::check(&Tree::of_this_project()));
}

#[test]
fn files_and_functions_fit_a_reader() {
    assert_none(&size::check(&Tree::of_this_project(), &size::EXCEPTIONS));
}

#[test]
fn files_say_what_they_are_for_and_leave_nothing_undone() {
    assert_none(&words::check(&Tree::of_this_project()));
}

#[test]
fn the_map_shows_every_file_and_nothing_else() {
    assert_none(&map::check(&Tree::of_this_project()));
}

#[test]
fn documents_link_to_what_exists() {
    assert_none(&links::check(&Tree::of_this_project()));
}
