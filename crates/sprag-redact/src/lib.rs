//! Takes secrets and personal data out of a text before it is encrypted, sent or kept. No file is opened here, no network
//! used, no clock read, nothing logged.
//!
//! A [`Redactor`] gives a text back with what it found replaced, and says how much of each [`Kind`] that was. [`Patterns`] is
//! the one that knows the usual forms:
//!
//! | kind | what is replaced |
//! | --- | --- |
//! | [`PrivateKey`](Kind::PrivateKey) | PEM blocks of private keys (PKCS#1, PKCS#8, SEC 1, OpenSSH, PGP, SSH2), of PuTTY, `AGE-SECRET-KEY-1…`, `xprv…`; hexadecimal, base58 and base64 after `private_key =` and the like; 12 to 24 words after `mnemonic:` or `seed phrase:` |
//! | [`AuthHeader`](Kind::AuthHeader) | values of `Authorization`, `Proxy-Authorization`, `Cookie` and `Set-Cookie`; `Bearer …` and `Basic …` anywhere; the password in `scheme://user:password@host` |
//! | [`Token`](Kind::Token) | tokens with the marks of AWS, GitHub, GitLab, Slack, Stripe, OpenAI, Anthropic, Google, npm, PyPI and some more; JSON Web Tokens; what looks like a secret after `api_key=`, `password:`, `--token` and the like |
//! | [`Card`](Kind::Card) | 13 to 19 digits of a card issuer that pass the check of Luhn, also in groups |
//! | [`Email`](Kind::Email) | e-mail addresses |
//! | [`Phone`](Kind::Phone) | telephone numbers: international ones with `+`, and the usual national ones with separators |
//! | [`Ip`](Kind::Ip) | IPv4 and IPv6 addresses, but for loopback, unspecified addresses and masks |
//!
//! Whatever is found gives way to `[redacted:email]` with the name of its kind. Redacting again changes nothing, and takes
//! time linear in the text whatever stands in it. No pattern is complete: this makes leaks rarer, and no promise that there is
//! none.
//!
//! ```
//! use sprag_redact::{Kind, Patterns, Redactor};
//!
//! let redacted = Patterns::new().redact("Write to alice@example.com, the password is hunter2!");
//! assert_eq!(redacted.text, "Write to [redacted:email], the password is [redacted:token]");
//! assert_eq!(redacted.counts.of(Kind::Email), 1);
//! assert_eq!(redacted.counts.total(), 2);
//! ```
#![forbid(unsafe_code)]

mod cards;
mod headers;
mod kind;
mod mail;
mod names;
mod net;
mod patterns;
mod phones;
mod private_keys;
mod redactor;
mod text;
mod tokens;

pub use kind::{Counts, Kind};
pub use patterns::Patterns;
pub use redactor::{Redacted, Redactor};
