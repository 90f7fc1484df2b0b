//! report.html: a run on one page that opens anywhere, from the files of its folder. Nothing is fetched: styles, script and
//! pictures stand in it.
//!
//! Each part of the page is a file here that turns files of a run into plain values (`*View`), which a template of its own
//! shows. The templates lie in `page/templates/`; [`render`] is the only file that knows their engine.

mod numbers;
mod render;
mod table;
mod texts;
