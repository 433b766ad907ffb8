//! The signature of requests to AWS, version 4 ("Create a signed AWS API request", AWS General Reference).

use sprag_crypto::{hmac, sha256};
use zeroize::Zeroizing;

/// A request, as far as it is signed. Its path needs no encoding; it has no query.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// Names in lower case and ascending order; values without white space at the ends or twice.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

/// Who signs, for what.
pub(crate) struct Scope<'a> {
    pub(crate) access_key_id: &'a str,
    pub(crate) secret_access_key: &'a str,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    /// `YYYYMMDDThhmmssZ`, as in the header `x-amz-date`.
    pub(crate) time: &'a str,
}

/// The value of the header `authorization`.
pub(crate) fn authorization(request: &Request<'_>, scope: &Scope<'_>) -> String {
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let headers = request.headers.iter();
    let headers: String = headers
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let body = hex::encode(sha256(&[request.body]));
    let (method, path) = (request.method, request.path);
    let canonical = format!("{method}\n{path}\n\n{headers}\n{names}\n{body}");

    let day = scope.time.get(..8).unwrap_or("");
    let (region, service, time) = (scope.region, scope.service, scope.time);
    let within = format!("{day}/{region}/{service}/aws4_request");
    let canonical = hex::encode(sha256(&[canonical.as_bytes()]));
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{within}\n{canonical}");

    let secret = Zeroizing::new(format!("AWS4{}", scope.secret_access_key));
    let key = hmac(secret.as_bytes(), &[day.as_bytes()]);
    let key = hmac(key.as_slice(), &[region.as_bytes()]);
    let key = hmac(key.as_slice(), &[service.as_bytes()]);
    let key = hmac(key.as_slice(), &[b"aws4_request"]);
    let signature = hex::encode(*hmac(key.as_slice(), &[to_sign.as_bytes()]));

    let credential = format!("{}/{within}", scope.access_key_id);
    format!(
        "AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    )
}

/// A time in seconds of Unix as `YYYYMMDDThhmmssZ`.
pub(crate) fn amz_date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin with March, so that the day which is not always there comes last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + later;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The credentials, time and place of the published test suite of the signature.
    const SCOPE: Scope<'_> = Scope {
        access_key_id: "AKIDEXAMPLE",
        secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        region: "us-east-1",
        service: "service",
        time: "20150830T123600Z",
    };

    fn signature(method: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
        let request = Request {
            method,
            path: "/",
            headers,
            body,
        };
        let whole = authorization(&request, &SCOPE);
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let start = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders={}, Signature=",
            names.join(";")
        );
        whole.strip_prefix(&start).unwrap().to_owned()
    }

    #[test]
    fn the_published_vectors_are_met() {
        let headers = [
            ("host", "example.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
        ];
        assert_eq!(
            signature("GET", &headers, b""),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
        assert_eq!(
            signature("POST", &headers, b""),
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("host", "example.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
        ];
        assert_eq!(
            signature("POST", &headers, b"Param1=value1"),
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
        );
    }

    #[test]
    fn every_part_of_a_request_is_signed() {
        let headers = [("host", "a"), ("x-amz-target", "b")];
        let first = signature("POST", &headers, b"body");
        assert_ne!(signature("PUT", &headers, b"body"), first);
        assert_ne!(signature("POST", &headers, b"bodz"), first);
        let other = [("host", "a"), ("x-amz-target", "c")];
        assert_ne!(signature("POST", &other, b"body"), first);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_440_938_160, "20150830T123600Z"),
            (1_709_164_800, "20240229T000000Z"),
            (1_735_689_599, "20241231T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
            (4_107_456_000, "21000228T000000Z"),
        ] {
            assert_eq!(amz_date(seconds), text);
        }
    }
}
