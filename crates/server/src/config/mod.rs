//! Configuration: what was typed ([`text`]) becomes what is meant ([`plan`]), or a report of
//! every mistake ([`problem`]).
//!
//! Goal: a server starts, or reloads, only with a plan that can be carried out. Cost: the file is
//! read once; nothing here runs while a request is served.

pub mod admin;
pub mod architecture;
mod check;
pub mod choice;
mod nearest;
pub mod network;
pub mod pattern;
pub mod plan;
pub mod problem;
pub mod template;
pub mod text;
pub mod typed;
pub mod units;
pub mod user;

use std::path::Path;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;

pub use check::check_folder;
pub use plan::Plan;
pub use problem::{Problem, Report};
pub use units::{parse_duration, parse_listen, parse_size};

/// Reads and checks a configuration file. Relative paths in it start at its own folder.
pub fn load(file: &Path) -> Result<Plan, Report> {
    understand(&read(file)?, file)
}

/// Checks the text of a configuration file, whatever has become of the file.
pub fn understand(text: &str, file: &Path) -> Result<Plan, Report> {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    parse(text, file, absolute.parent().unwrap_or(Path::new("/")))
}

/// The text of a configuration file.
pub fn read(file: &Path) -> Result<String, Report> {
    let failed = |sentence: String| Report::new(file, "", vec![Problem::whole(sentence)]);
    let bytes = std::fs::read(file).map_err(|error| failed(unreadable(file, &error)))?;
    String::from_utf8(bytes).map_err(|_| failed("the file is not UTF-8: save it in that encoding".into()))
}

/// Checks a configuration's text. `file` is for the report, `base` is where relative paths start.
pub fn parse(text: &str, file: &Path, base: &Path) -> Result<Plan, Report> {
    let typed: text::FileText =
        toml::from_str(text).map_err(|error| Report::new(file, text, vec![Problem::from_toml(&error)]))?;
    check::check(&typed, base).map_err(|problems| Report::new(file, text, problems))
}

/// The JSON Schema of the file, for editors.
pub fn schema() -> String {
    let settings = SchemaSettings::draft07()
        .with_transform(RecursiveTransform(without_null))
        .with_transform(RecursiveTransform(sorted));
    let schema = settings.into_generator().into_root_schema_for::<text::FileText>();
    let mut json = serde_json::to_string_pretty(&schema).unwrap_or_default();
    json.push('\n');
    json
}

fn unreadable(file: &Path, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            let shown = file.display();
            format!("`{shown}` does not exist: name another with `-c FILE`, or serve a folder with `amped serve DIR`")
        }
        _ => format!("`{}` cannot be read: {error}", file.display()),
    }
}

/// By name, whichever order serde_json keeps: that depends on what else is built (its feature `preserve_order`).
fn sorted(schema: &mut Schema) {
    let sort = |map: &mut serde_json::Map<String, serde_json::Value>| {
        let by_name: std::collections::BTreeMap<_, _> = std::mem::take(map).into_iter().collect();
        map.extend(by_name);
    };
    let Some(keywords) = schema.as_object_mut() else { return };
    sort(keywords);
    for named in ["properties", "definitions"] {
        if let Some(serde_json::Value::Object(map)) = keywords.get_mut(named) {
            sort(map);
        }
    }
}

/// TOML has no null: a key that may be missing is not one that may be null.
fn without_null(schema: &mut Schema) {
    if let Some(serde_json::Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if let Some(serde_json::Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let null = serde_json::json!({ "type": "null" });
    if let Some(serde_json::Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| *choice != null);
        if let [serde_json::Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            only.into_iter().for_each(|(key, value)| {
                schema.insert(key, value);
            });
        }
    }
}

#[cfg(test)]
mod tests;
