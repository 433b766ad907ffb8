//! Times as people and programs write them: RFC 3339, or a date alone.

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};

/// How a time is to be written.
pub(crate) const FORM: &str = "2026-01-31, or 2026-01-31T12:00:00Z";

/// Milliseconds of Unix. A date is its first moment in UTC.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time: write {FORM}");
    let time = match NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        Ok(date) => date.and_hms_opt(0, 0, 0).ok_or_else(wrong)?.and_utc(),
        Err(_) => DateTime::parse_from_rfc3339(text)
            .map_err(|_| wrong())?
            .to_utc(),
    };
    u64::try_from(time.timestamp_millis()).map_err(|_| wrong())
}

/// A time in UTC. One that no calendar knows stays a number.
pub(crate) fn show(ms: u64) -> String {
    let time = i64::try_from(ms).ok();
    let time = time.and_then(DateTime::<Utc>::from_timestamp_millis);
    match time {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        None => ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_read_and_shown_in_utc() {
        for (text, ms, shown) in [
            ("1970-01-01", 0, "1970-01-01T00:00:00Z"),
            ("2026-01-31", 1_769_817_600_000, "2026-01-31T00:00:00Z"),
            (
                "2026-01-31T12:00:00.25+02:00",
                1_769_853_600_250,
                "2026-01-31T10:00:00.250Z",
            ),
        ] {
            assert_eq!(parse(text).unwrap(), ms);
            assert_eq!(show(ms), shown);
        }
        assert_eq!(show(u64::MAX), u64::MAX.to_string());
    }

    #[test]
    fn what_is_no_time_is_refused_with_the_right_form() {
        for text in [
            "",
            "yesterday",
            "2026-02-30",
            "2026-1-1x",
            "12:00",
            "1969-12-31",
            "1769817600",
        ] {
            assert!(parse(text).unwrap_err().contains(FORM), "{text}");
        }
    }
}
