//! Pages from templates. Whatever is put into one is escaped, and made harmless first.

use std::io;

use minijinja::{Environment, Error, HtmlEscape, UndefinedBehavior, Value, escape_formatter};
use serde::Serialize;

use super::{numbers::grouped, texts::harmless};

/// Every template, by its name.
const TEMPLATES: [(&str, &str); 15] = [
    ("base.html", include_str!("templates/base.html")),
    ("macros.html", include_str!("templates/macros.html")),
    ("run.html", include_str!("templates/run.html")),
    ("tasks.html", include_str!("templates/tasks.html")),
    ("comparison.html", include_str!("templates/comparison.html")),
    ("methods.html", include_str!("templates/methods.html")),
    ("data.html", include_str!("templates/data.html")),
    ("head.html", include_str!("templates/head.html")),
    ("worth.html", include_str!("templates/worth.html")),
    ("mistakes.html", include_str!("templates/mistakes.html")),
    ("map.html", include_str!("templates/map.html")),
    ("sweep.html", include_str!("templates/sweep.html")),
    ("again.html", include_str!("templates/again.html")),
    ("style.css", include_str!("templates/style.css")),
    ("script.js", include_str!("templates/script.js")),
];

/// The hash by which a page allows its one script.
pub(super) const SCRIPT_HASH: &str = "sha256-4UfAweBG5IbDpJZ71gofcOC95FWinJkAdjzBFLudfRI=";

/// Renders a template with a page.
///
/// # Errors
/// When the page lacks something that the template shows.
pub(super) fn render(template: &str, page: &impl Serialize) -> io::Result<String> {
    let failed = |error: Error| io::Error::other(format!("{error:#}"));
    let environment = environment().map_err(failed)?;
    let template = environment.get_template(template).map_err(failed)?;
    template.render(page).map_err(failed)
}

fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if !value.is_safe() => {
            escape_formatter(out, state, &Value::from(harmless(text).into_owned()))
        }
        _ => escape_formatter(out, state, value),
    });
    environment.add_filter("grouped", |number: u64| grouped(number));
    environment.add_filter("prose", |text: String| Value::from_safe_string(prose(&text)));
    environment.add_global("script_hash", SCRIPT_HASH);
    for (name, text) in TEMPLATES {
        environment.add_template(name, text)?;
    }
    Ok(environment)
}

/// A sentence as HTML, with what stands between backticks as code. A backtick without its partner leaves all of them as
/// they are.
fn prose(text: &str) -> String {
    let text = harmless(text);
    let pieces: Vec<&str> = text.split('`').collect();
    if pieces.len().is_multiple_of(2) {
        return HtmlEscape(&text).to_string();
    }
    let pieces = pieces.into_iter().enumerate().map(|(place, piece)| match place % 2 {
        0 => HtmlEscape(piece).to_string(),
        _ => format!("<code>{}</code>", HtmlEscape(piece)),
    });
    pieces.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &'static str, text: &str) -> String {
        let mut environment = environment().unwrap();
        environment.add_template("test.html", template).unwrap();
        let page = minijinja::context! { text => text };
        environment.get_template("test.html").unwrap().render(page).unwrap()
    }

    #[test]
    fn what_is_put_into_a_page_is_text_wherever_it_stands() {
        let hostile = "</script><img src=x onerror=alert(1)>\"'\u{1b}[31m\u{202e}";
        for template in [
            "<p>{{ text }}</p>",
            "<p title=\"{{ text }}\">",
            "<svg><title>{{ text }}</title></svg>",
            "<p>{{ text|prose }}</p>",
        ] {
            let page = rendered(template, hostile);
            assert!(!page.contains("</script>") && !page.contains("<img"), "{page}");
            assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}'), "{page}");
            assert!(page.contains("\\u{202e}") && page.contains("&#x27;"), "{page}");
            assert_eq!(page.matches('"').count(), template.matches('"').count(), "{page}");
        }
    }

    #[test]
    fn what_stands_between_backticks_in_a_sentence_is_code_and_nothing_else() {
        for (text, shown) in [
            ("set `a < b`, then `c`", "set <code>a &lt; b</code>, then <code>c</code>"),
            ("nothing & more", "nothing &amp; more"),
            ("one ` alone", "one ` alone"),
            ("`<b>`\u{202e}", "<code>&lt;b&gt;</code>\\u{202e}"),
        ] {
            assert_eq!(rendered("{{ text|prose }}", text), shown);
        }
    }

    #[test]
    fn a_table_of_many_columns_is_set_closer_and_its_note_is_prose() {
        let table = |n_columns: usize| {
            let column = minijinja::context! { name => "p", is_number => true };
            let note = "by `runs diff`";
            let rows: [Value; 0] = [];
            let t = minijinja::context! { columns => vec![column; n_columns], rows, note };
            let mut environment = environment().unwrap();
            let page = "{% import 'macros.html' as show %}{{ show.table(t) }}";
            environment.add_template("test.html", page).unwrap();
            let template = environment.get_template("test.html").unwrap();
            template.render(minijinja::context! { t }).unwrap()
        };
        assert!(table(8).contains("class=\"scroll wide\""), "{}", table(8));
        assert!(table(7).contains("class=\"scroll\""), "{}", table(7));
        assert!(table(7).contains("by <code>runs diff</code></p>"), "{}", table(7));
    }

    #[test]
    fn every_template_is_known_to_the_parser() {
        environment().unwrap();
    }

    #[test]
    fn a_page_that_lacks_something_is_an_error() {
        let environment = environment().unwrap();
        let page = environment.get_template("run.html").unwrap().render(minijinja::context! {});
        assert!(page.is_err());
    }
}
