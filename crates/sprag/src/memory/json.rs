//! JSON that this library does not look into, kept as it is.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::InvalidRecord;

/// Nested deeper than this, other programs would not read it.
const MAX_DEPTH: usize = 128;

/// The longest name that is told with the strings of its field, in bytes. Of longer ones none is kept in mind: it would be copied for each
/// array and looked at for each string in them.
const MAX_NAME: usize = 256;

/// Changes a string, given the name of the field that it stands in.
pub(super) type Change<'a> = dyn FnMut(&str, &mut String) + 'a;

/// One JSON value, kept as text: numbers of any size and precision, the order and repetition of names and the spelling of
/// strings stay as they came. Only the white space between its parts goes. Wiped when dropped.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use sprag::memory::Json;
///
/// let json = Json::parse(r#"{ "π": 3.14159265358979323846264338327950288 }"#)?;
/// assert_eq!(json.as_str(), r#"{"π":3.14159265358979323846264338327950288}"#);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Zeroizing<String>);

impl Json {
    /// Takes the text of one JSON value.
    ///
    /// # Errors
    /// [`InvalidRecord::Json`]: it is none, or nested more than 128 deep.
    pub fn parse(text: &str) -> Result<Self, InvalidRecord> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|_| InvalidRecord::Json)?;
        Self::of(raw)
    }

    /// A string.
    #[must_use]
    pub fn string(text: &str) -> Self {
        Self(Zeroizing::new(serde_json::Value::from(text).to_string()))
    }

    /// The text, without white space between its parts.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Changes every string in it that is no name of a field, given the name of the field that it stands in; that of the whole value
    /// is `name`, and one of more than 256 bytes is none. A string that stays the same keeps its spelling.
    pub(super) fn change_strings(&mut self, name: &str, change: &mut Change<'_>) {
        let mut changed = Zeroizing::new(String::with_capacity(self.0.len()));
        let mut rest = self.0.as_str();
        // The name that holds here, and those that hold again where an object or array ends.
        let mut name = name.to_owned();
        let mut outer = Vec::new();
        while let Some(start) = rest.find('"') {
            let (before, string) = rest.split_at(start);
            let (string, after) = string.split_at(string_end(string));
            for symbol in before.chars() {
                match symbol {
                    '[' | '{' => outer.push(name.clone()),
                    ']' | '}' => name = outer.pop().unwrap_or_default(),
                    _ => {}
                }
            }
            changed.push_str(before);
            rest = after;
            let text = serde_json::from_str::<String>(string).ok();
            // Compact: nothing stands between a name and its colon.
            match text {
                Some(text) if after.starts_with(':') => {
                    changed.push_str(string);
                    name = Some(text)
                        .filter(|name| name.len() <= MAX_NAME)
                        .unwrap_or_default();
                }
                Some(text) => {
                    let before = Zeroizing::new(text);
                    let mut text = before.to_string();
                    change(&name, &mut text);
                    if text == *before {
                        changed.push_str(string);
                    } else {
                        changed.push_str(Self::string(&text).as_str());
                    }
                    zeroize::Zeroize::zeroize(&mut text);
                }
                None => changed.push_str(string),
            }
        }
        changed.push_str(rest);
        self.0 = changed;
    }

    pub(super) fn of(raw: &RawValue) -> Result<Self, InvalidRecord> {
        compact(raw.get()).map(Self).ok_or(InvalidRecord::Json)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.0.len())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::of(&raw).map_err(serde::de::Error::custom)
    }
}

/// Where the string ends with which a text begins.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (place, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return place.saturating_add(1),
            _ => {}
        }
    }
    text.len()
}

/// Valid JSON without white space outside of its strings.
fn compact(text: &str) -> Option<Zeroizing<String>> {
    // With this capacity the text never moves, which would leave a copy behind.
    let mut compact = Zeroizing::new(String::with_capacity(text.len()));
    let (mut in_string, mut escaped, mut depth) = (false, false, 0_usize);
    for symbol in text.chars() {
        match symbol {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ if in_string => {}
            ' ' | '\t' | '\n' | '\r' => continue,
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return None;
        }
        compact.push(symbol);
    }
    Some(compact)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beyond_f64_order_repetition_and_spelling_stay() {
        for text in [
            "123456789012345678901234567890.123456789012345678901234567890e-4000",
            "18446744073709551616",
            "-0",
            "1E400",
            r#"{"z":1,"a":2,"z":3}"#,
            r#""\u0041\/ \" {[ \\""#,
            r#"[[],{},[{"a":null}],true]"#,
        ] {
            let json = Json::parse(text).unwrap();
            assert_eq!(json.as_str(), text);
            assert_eq!(serde_json::to_string(&json).unwrap(), text);
            assert_eq!(serde_json::from_str::<Json>(text).unwrap(), json);
        }
    }

    #[test]
    fn only_white_space_between_the_parts_goes() {
        let json = Json::parse(" {\n\t\"a b\" : [ 1 ,\r\n2 ] , \"c\\\" \" : \" d \" } ").unwrap();
        assert_eq!(json.as_str(), r#"{"a b":[1,2],"c\" ":" d "}"#);
    }

    #[test]
    fn strings_are_changed_and_nothing_else() {
        let text = r#"{"a":["a","\\\"a","b",1.50,{"a":"a"}],"c\"":null}"#;
        let mut json = Json::parse(text).unwrap();
        json.change_strings("", &mut |_, _| {});
        assert_eq!(json.as_str(), text);
        json.change_strings("", &mut |_, text| *text = text.replace('a', "\"é"));
        let changed = r#"{"a":["\"é","\\\"\"é","b",1.50,{"a":"\"é"}],"c\"":null}"#;
        assert_eq!(json.as_str(), changed);
        let mut json = Json::string("a");
        json.change_strings("", &mut |_, text| text.push('b'));
        assert_eq!(json.as_str(), r#""ab""#);
        let text = r#"["1",{"a":"2","b":["3",{"c":{"d":"4"}},"5"],"e":[]},"6"]"#;
        let (mut json, mut named) = (Json::parse(text).unwrap(), Vec::new());
        json.change_strings("x", &mut |name, text| named.push(format!("{name}{text}")));
        assert_eq!(named, ["x1", "a2", "b3", "d4", "b5", "x6"]);
    }

    #[test]
    fn long_name_is_not_copied_for_each_array_in_its_field() {
        let strings = |text: &str| {
            let (mut json, mut named) = (Json::parse(text).unwrap(), Vec::new());
            json.change_strings("x", &mut |name, _| named.push(name.len()));
            assert_eq!(json.as_str(), text);
            named
        };
        let with = |length| format!(r#"{{"{}":["1"],"a":["2"]}}"#, "n".repeat(length));
        assert_eq!(strings(&with(256)), [256, 1]);
        assert_eq!(strings(&with(257)), [0, 1]);
        // Copied for each of them it would be 2 TB.
        let many = format!(
            r#"{{"{}":[{}0]}}"#,
            "n".repeat(2 << 20),
            "[],".repeat(1 << 20)
        );
        assert!(strings(&many).is_empty());
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "", "{", "nul", "1 2", "{\"a\"}", "'a'", "01", "\"\n\"", "[1,]",
        ] {
            assert_eq!(Json::parse(text), Err(InvalidRecord::Json), "{text}");
        }
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::parse(&nested(128)).is_ok());
        assert_eq!(Json::parse(&nested(129)), Err(InvalidRecord::Json));
        // Far deeper than a stack: refused all the same.
        assert_eq!(Json::parse(&nested(1_000_000)), Err(InvalidRecord::Json));
    }

    #[test]
    fn json_prints_nothing_of_itself() {
        assert_eq!(format!("{:?}", Json::string("secret")), "Json(8 bytes)");
    }
}
