//! The examples, the manual and the schema are true.

use super::*;

#[test]
fn the_examples_load() {
    let files = std::fs::read_dir(examples()).unwrap().map(|entry| entry.unwrap().path());
    let mut loaded = 0;
    for file in files.filter(|file| file.extension().is_some_and(|end| end == "toml")) {
        load(&file).unwrap_or_else(|report| panic!("{report}"));
        loaded += 1;
    }
    assert!(loaded >= 3);
}

#[test]
fn the_manuals_blocks_load() {
    let pages = std::fs::read_dir(docs()).unwrap().map(|entry| entry.unwrap().path());
    let mut loaded = 0;
    for page in pages.filter(|page| page.extension().is_some_and(|end| end == "md")) {
        let page = std::fs::read_to_string(page).unwrap();
        for rest in page.split("```toml\n").skip(1) {
            let block = rest.split("```").next().unwrap();
            let site = if block.contains("[[sites]]") { "" } else { SITE };
            meant(&format!("{block}{site}"));
            loaded += 1;
        }
    }
    assert!(loaded >= 5);
}

/// However a file is cut short, there is a plan or a report, and the report can be shown.
#[test]
fn no_prefix_of_a_file_is_too_much() {
    let text = std::fs::read_to_string(examples().join("two-sites.toml")).unwrap();
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
        if let Err(report) = parse(&text[..end], Path::new("cut.toml"), &examples()) {
            assert!(report.to_string().starts_with("error: "));
        }
    }
}

#[test]
fn the_schema_is_up_to_date() {
    let file = docs().join("amped.schema.json");
    if std::env::var_os("AMPED_BLESS").is_some() {
        std::fs::write(&file, schema()).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == schema(), "run the tests once with AMPED_BLESS=1 to write {file:?} anew");
}

/// A default that the schema tells, typed, changes nothing.
#[test]
fn the_schemas_defaults_are_the_plans() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let tables = [("", &schema["properties"]), ("limits", &schema["definitions"]["LimitsText"]["properties"])];
    for (table, keys) in tables {
        for (key, about) in keys.as_object().unwrap() {
            let Some(default) = about.get("default").filter(|d| !d.is_object() && !d.is_array()) else {
                continue;
            };
            let line = if table.is_empty() {
                format!("{key} = {default}\n")
            } else {
                format!("[{table}]\n{key} = {default}\n")
            };
            assert_eq!(meant(&format!("{line}{SITE}")), meant(SITE), "{line}");
        }
    }
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}
