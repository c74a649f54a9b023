//! Objects as text with gaps: made once, filled in a hundred thousand times.

use serde_json::Value;

/// A JSON text with gaps.
pub struct Template {
    /// Text and names of gaps, by turns.
    parts: Vec<String>,
}

impl Template {
    /// Of an object in whose texts `<name>` is a gap, and `"<*name*>"` is one for any value.
    pub fn of(object: &Value) -> Self {
        let text = object.to_string().replace("\"<*", "<").replace("*>\"", ">");
        Self { parts: text.split(['<', '>']).map(str::to_owned).collect() }
    }

    /// Writes it, with what is said of each gap by its name.
    pub fn fill(&self, out: &mut String, mut fill: impl FnMut(&str, &mut String)) {
        for (index, part) in self.parts.iter().enumerate() {
            if index % 2 == 0 {
                out.push_str(part);
            } else {
                fill(part, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn gaps_are_filled_with_text_and_with_values() {
        let template = Template::of(&json!({ "name": "a-<number>", "items": "<*items*>" }));
        let mut out = String::new();
        template.fill(&mut out, |gap, out| out.push_str(if gap == "number" { "7" } else { "[1,2]" }));
        let read: Value = serde_json::from_str(&out).expect("it is JSON");
        assert_eq!(read, json!({ "name": "a-7", "items": [1, 2] }));
    }
}
