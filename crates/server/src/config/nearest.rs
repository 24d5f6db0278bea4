//! "Did you mean": the nearest of a few valid words.
//!
//! Goal: a slip of the finger gets its answer in the error. Cost: one small table per mistake.

/// The sentence for a word that is not among the valid ones.
pub fn one_of(what: &str, typed: &str, valid: &[&str]) -> String {
    match nearest(typed, valid) {
        Some(near) => {
            format!("unknown {what} `{typed}`: did you mean `{near}`? (valid: {})", list(valid))
        }
        None => format!("unknown {what} `{typed}`: expected one of {}", list(valid)),
    }
}

/// The valid word that is nearest to the typed one, when it is near at all: a third of its
/// letters may differ, but at least one. `-`, `_` and case count as nothing.
pub fn nearest<'a>(typed: &str, valid: &[&'a str]) -> Option<&'a str> {
    let plain = plain(typed);
    let (distance, near) =
        valid.iter().map(|word| (distance(&plain, &self::plain(word)), *word)).min_by_key(|p| p.0)?;
    (distance <= (plain.len() / 3).max(1)).then_some(near)
}

/// The words as a list for people: `` `a`, `b` ``.
pub fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn plain(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// Damerau's distance (a swap of neighbours is one mistake), restricted to single edits.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let of = |a: &str, b: &str| distance(&plain(a), &plain(b));
        assert_eq!(of("listen", "listen"), 0);
        assert_eq!(of("lisetn", "listen"), 1);
        assert_eq!(of("helperQueue", "helper_queue"), 0);
        assert_eq!(of("", "abc"), 3);
        assert_eq!(of("abc", ""), 3);
    }

    #[test]
    fn far_words_are_not_near() {
        let valid = ["listen", "workers", "root"];
        assert_eq!(nearest("lsten", &valid), Some("listen"));
        assert_eq!(nearest("rot", &valid), Some("root"));
        assert_eq!(nearest("server", &valid), None);
        assert_eq!(nearest("", &[]), None);
    }
}
