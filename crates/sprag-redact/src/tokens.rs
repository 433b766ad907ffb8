//! Tokens that their issuers mark.

use crate::Kind;
use crate::text::{Found, Text, is_base64url, is_word};

/// What a token is made of, behind its mark.
#[derive(Clone, Copy)]
enum Chars {
    /// Letters and digits.
    Alnum,
    /// Capitals and digits.
    Upper,
    /// Small hexadecimal digits, or large ones.
    Hex,
    /// Those of base64url, and with dots or slashes or `%`.
    Url,
    Dotted,
    Path,
}

impl Chars {
    fn contains(self, byte: u8) -> bool {
        match self {
            Self::Alnum => byte.is_ascii_alphanumeric(),
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Url => is_base64url(byte),
            Self::Dotted => is_base64url(byte) || byte == b'.',
            Self::Path => is_base64url(byte) || matches!(byte, b'.' | b'/' | b'%' | b'+' | b'='),
        }
    }
}

const ANY: usize = usize::MAX;

/// Marks with what follows, and how many of it at least and at most.
const FORMS: &[(&str, Chars, usize, usize)] = &[
    // AWS, keys and temporary keys
    ("AKIA", Chars::Upper, 16, 16),
    ("ASIA", Chars::Upper, 16, 16),
    ("ABIA", Chars::Upper, 16, 16),
    ("ACCA", Chars::Upper, 16, 16),
    // GitHub
    ("ghp_", Chars::Alnum, 30, ANY),
    ("gho_", Chars::Alnum, 30, ANY),
    ("ghu_", Chars::Alnum, 30, ANY),
    ("ghs_", Chars::Alnum, 30, ANY),
    ("ghr_", Chars::Alnum, 30, ANY),
    ("github_pat_", Chars::Url, 22, ANY),
    // GitLab
    ("glpat-", Chars::Dotted, 20, ANY),
    ("gldt-", Chars::Url, 20, ANY),
    ("glptt-", Chars::Url, 20, ANY),
    ("glrt-", Chars::Dotted, 20, ANY),
    ("glcbt-", Chars::Url, 20, ANY),
    ("glft-", Chars::Url, 20, ANY),
    ("glsoat-", Chars::Url, 20, ANY),
    ("glimt-", Chars::Url, 20, ANY),
    ("glagent-", Chars::Url, 20, ANY),
    ("gloas-", Chars::Url, 20, ANY),
    // Slack
    ("xoxb-", Chars::Path, 10, ANY),
    ("xoxp-", Chars::Path, 10, ANY),
    ("xoxa-", Chars::Path, 10, ANY),
    ("xoxr-", Chars::Path, 10, ANY),
    ("xoxs-", Chars::Path, 10, ANY),
    ("xoxe-", Chars::Path, 10, ANY),
    ("xoxe.", Chars::Path, 10, ANY),
    ("xoxc-", Chars::Path, 10, ANY),
    ("xoxd-", Chars::Path, 10, ANY),
    ("xapp-", Chars::Path, 10, ANY),
    ("hooks.slack.com/services/", Chars::Path, 20, ANY),
    // Stripe, and Clerk, which marks alike
    ("sk_live_", Chars::Alnum, 10, ANY),
    ("sk_test_", Chars::Alnum, 10, ANY),
    ("rk_live_", Chars::Alnum, 10, ANY),
    ("rk_test_", Chars::Alnum, 10, ANY),
    ("whsec_", Chars::Path, 16, ANY),
    // OpenAI, Anthropic, OpenRouter and others
    ("sk-", Chars::Url, 20, ANY),
    ("xai-", Chars::Alnum, 40, ANY),
    ("gsk_", Chars::Alnum, 30, ANY),
    ("pplx-", Chars::Alnum, 30, ANY),
    ("r8_", Chars::Alnum, 30, ANY),
    ("hf_", Chars::Alnum, 30, ANY),
    // Google
    ("AIza", Chars::Url, 35, 35),
    ("ya29.", Chars::Url, 20, ANY),
    ("GOCSPX-", Chars::Url, 20, ANY),
    // package registries
    ("npm_", Chars::Alnum, 36, 36),
    ("pypi-", Chars::Url, 50, ANY),
    ("rubygems_", Chars::Hex, 48, 48),
    ("dckr_pat_", Chars::Url, 20, ANY),
    // others
    ("dop_v1_", Chars::Hex, 64, 64),
    ("doo_v1_", Chars::Hex, 64, 64),
    ("shpat_", Chars::Hex, 32, 32),
    ("shpss_", Chars::Hex, 32, 32),
    ("shpca_", Chars::Hex, 32, 32),
    ("shppa_", Chars::Hex, 32, 32),
    ("dapi", Chars::Hex, 32, 32),
    ("hvs.", Chars::Url, 20, ANY),
    ("hvb.", Chars::Url, 20, ANY),
    ("lin_api_", Chars::Alnum, 32, ANY),
    ("ntn_", Chars::Alnum, 40, ANY),
    ("sntrys_", Chars::Path, 40, ANY),
    ("figd_", Chars::Url, 36, ANY),
    ("ATATT3", Chars::Path, 60, ANY),
    ("sbp_", Chars::Hex, 40, 40),
    ("SG.", Chars::Dotted, 60, ANY),
    ("SK", Chars::Hex, 32, 32),
    ("PMAK-", Chars::Url, 40, ANY),
    ("tskey-", Chars::Url, 20, ANY),
];

/// The same for private keys: of age, and extended keys of wallets.
const KEYS: &[(&str, Chars, usize, usize)] = &[
    ("AGE-SECRET-KEY-", Chars::Url, 50, ANY),
    ("xprv", Chars::Alnum, 100, 120),
    ("yprv", Chars::Alnum, 100, 120),
    ("zprv", Chars::Alnum, 100, 120),
    ("tprv", Chars::Alnum, 100, 120),
];

/// A token is not made of words: one of the first so many characters is a digit.
const DIGIT_WITHIN: usize = 40;

/// At the beginning of a word.
pub(crate) fn find(text: &Text<'_>, place: usize) -> Option<Found> {
    if let Some(end) = json_web_token(text, place).or_else(|| telegram(text, place)) {
        return Some(Found::new(Kind::Token, place, end));
    }
    let among = |forms: &[(&str, Chars, usize, usize)]| {
        let first = text.at(place);
        let mut forms = forms
            .iter()
            .filter(|form| form.0.as_bytes().first() == Some(&first));
        forms.find_map(|form| marked(text, place, *form))
    };
    let token = among(FORMS).map(|end| Found::new(Kind::Token, place, end));
    token.or_else(|| among(KEYS).map(|end| Found::new(Kind::PrivateKey, place, end)))
}

fn marked(
    text: &Text<'_>,
    place: usize,
    (mark, chars, least, most): (&str, Chars, usize, usize),
) -> Option<usize> {
    if !text.starts_with(place, mark) {
        return None;
    }
    let start = place + mark.len();
    // Judged by what is near, so that a run of false beginnings is not gone through once for each of them.
    let near = text.short_run_of(start, least.max(DIGIT_WITHIN), |b| chars.contains(b));
    let has_digit = text.slice(start, near).bytes().any(|b| b.is_ascii_digit());
    if near - start < least || !has_digit {
        return None;
    }
    let end = if most == ANY {
        text.run_of(near, |b| chars.contains(b))
    } else {
        text.short_run_of(start, most, |b| chars.contains(b))
    };
    let end = start + text.slice(start, end).trim_end_matches(['.', '/']).len();
    (most == ANY || !is_word(text.at(end))).then_some(end)
}

/// `eyJ… . eyJ… . signature`, the last possibly empty; or the five parts of an encrypted one.
fn json_web_token(text: &Text<'_>, place: usize) -> Option<usize> {
    if !text.starts_with(place, "eyJ") {
        return None;
    }
    if text.run.get() <= place {
        text.run.set(text.run_of(place, is_base64url));
    }
    let head = text.run.get();
    if head - place < 10 || text.at(head) != b'.' {
        return None;
    }
    let (at, known) = text.jwt_tail.get();
    if at == head {
        return known;
    }
    let tail = tail_of_token(text, head);
    text.jwt_tail.set((head, tail));
    tail
}

fn tail_of_token(text: &Text<'_>, head: usize) -> Option<usize> {
    let payload = text.run_of(head + 1, is_base64url);
    if text.at(payload) != b'.' {
        return None;
    }
    let mut end = text.run_of(payload + 1, is_base64url);
    for _ in 0..2 {
        let next = text.run_of(end + 1, is_base64url);
        if text.at(end) == b'.' && next > end + 1 {
            end = next;
        }
    }
    (end > head + 8).then_some(end)
}

/// `123456789:AA…`, a bot of Telegram.
fn telegram(text: &Text<'_>, place: usize) -> Option<usize> {
    let colon = text.short_run_of(place, 11, |b| b.is_ascii_digit());
    let start = colon + 1;
    if colon - place < 8 || !text.starts_with(colon, ":AA") {
        return None;
    }
    let end = text.short_run_of(start, 36, is_base64url);
    (end - start == 35).then_some(end)
}
