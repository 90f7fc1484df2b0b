//! The description of the server: as OpenAPI, and as a page that is made of it and loads nothing.

use serde_json::Value;

/// The description of all paths.
const OPENAPI: &str = include_str!("openapi.json");

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;\
padding:0 1rem;color-scheme:light dark}\
pre{overflow:auto;padding:.5rem;border:1px solid #8888;border-radius:4px}table{border-collapse:collapse}\
td{padding:.1rem 1rem .1rem 0;vertical-align:top}h2{border-top:1px solid #8888;padding-top:1rem}";

/// The description in both forms.
pub(super) struct DocsPages {
    pub(super) openapi: String,
    pub(super) html: String,
}

impl DocsPages {
    pub(super) fn new() -> DocsPages {
        let openapi =
            OPENAPI.replacen("\"VERSION\"", &format!("{:?}", env!("CARGO_PKG_VERSION")), 1);
        let described: Value = serde_json::from_str(&openapi).unwrap_or_default();
        DocsPages { html: page(&described), openapi }
    }
}

fn page(described: &Value) -> String {
    let info = &described["info"];
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\
         <h1>{title} {version}</h1><p>{about}</p>\
         <p>The same for programs: <a href=\"/openapi.json\">/openapi.json</a></p>",
        title = text(&info["title"]),
        version = text(&info["version"]),
        about = text(&info["description"]),
    );
    for (path, methods) in described["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            html.push_str(&section(path, method, operation, &described["components"]["schemas"]));
        }
    }
    html + "</html>\n"
}

fn section(path: &str, method: &str, operation: &Value, schemas: &Value) -> String {
    let mut html = format!(
        "<h2><code>{} {}</code></h2><p>{}. {}</p>",
        escaped(&method.to_uppercase()),
        escaped(path),
        text(&operation["summary"]),
        text(&operation["description"])
    );
    let body = &operation["requestBody"]["content"]["application/json"];
    if let Some(example) = body.get("example") {
        html.push_str(&example_of("Request", example));
        html.push_str(&fields(&body["schema"], schemas));
    }
    let answer = &operation["responses"]["200"]["content"]["application/json"];
    if let Some(example) = answer.get("example") {
        html.push_str(&example_of("Answer", example));
    }
    html.push_str("<table>");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        html.push_str(&row(&escaped(status), &text(&response["description"])));
    }
    html + "</table>"
}

/// The fields of a request, in a table.
fn fields(schema: &Value, schemas: &Value) -> String {
    let named = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next());
    let schema = named.map_or(schema, |name| &schemas[name]);
    let fields = schema["properties"].as_object().into_iter().flatten();
    let rows = fields.map(|(name, field)| {
        row(&format!("<code>{}</code>", escaped(name)), &text(&field["description"]))
    });
    format!("<table>{}</table>", rows.collect::<String>())
}

fn row(name: &str, value: &str) -> String {
    format!("<tr><td>{name}<td>{value}")
}

fn example_of(title: &str, example: &Value) -> String {
    format!("<p>{title}, for example:</p><pre>{}</pre>", escaped(&format!("{example:#}")))
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_describes_every_path_and_loads_nothing() {
        let DocsPages { openapi, html } = DocsPages::new();
        let described: Value = serde_json::from_str(&openapi).unwrap();
        assert_eq!(described["info"]["version"], env!("CARGO_PKG_VERSION"));
        for path in described["paths"].as_object().unwrap().keys() {
            assert!(html.contains(&format!(" {path}</code>")), "{path}");
        }
        for loaded in ["src=", "http:", "https:", "<script", "<link", "<img", "@import", "url("] {
            assert!(!html.contains(loaded), "{loaded}");
        }
        assert!(html.contains("min_confidence") && html.contains("&quot;inputs&quot;"));
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let described: Value = serde_json::from_str(OPENAPI).unwrap();
        let schemas = &described["components"]["schemas"];
        let mut named: Vec<&str> = OPENAPI.split("#/components/schemas/").skip(1).collect();
        named.iter_mut().for_each(|rest| *rest = rest.split('"').next().unwrap());
        assert!(named.len() > 10, "{named:?}");
        for name in named {
            assert!(schemas[name].is_object(), "{name}");
        }
    }
}
