//! Reading files and standard input, never more than makes sense.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::CliError;

/// The largest input that is read, in bytes.
const MAX_INPUT: usize = 64 << 20;

/// All of a file, or of standard input for `-`.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let bytes = if path == Path::new("-") {
        read_all(io::stdin().lock(), MAX_INPUT)
    } else {
        File::open(path).and_then(|file| read_all(file, MAX_INPUT))
    };
    bytes.map_err(|cause| CliError::file(path, cause))
}

/// All of a source, if it has at most so many bytes.
pub(crate) fn read_all(source: impl Read, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let one_more = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    source.take(one_more).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("more than {} MiB", most >> 20),
        ));
    }
    Ok(bytes)
}

/// The envelopes in some input: one as it is, or one per line in hexadecimal. An envelope as it is begins with a byte
/// that is no hexadecimal digit.
pub(crate) fn envelopes(input: &[u8]) -> Vec<Vec<u8>> {
    let is_text = |byte: &u8| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace();
    if !input.iter().all(is_text) {
        return vec![input.to_vec()];
    }
    let lines = input.split(|byte| *byte == b'\n');
    lines
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .map(|line| hex::decode(line).unwrap_or_else(|_| line.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_envelope_comes_as_it_is_and_many_come_as_lines() {
        assert_eq!(envelopes(&[0x10, 0x61, 0x0a]), [[0x10, 0x61, 0x0a]]);
        assert_eq!(
            envelopes(b"1061\n\n 10FF\r\n"),
            [[0x10, 0x61], [0x10, 0xff]]
        );
    }

    #[test]
    fn what_is_neither_is_passed_on_to_be_refused() {
        assert_eq!(envelopes(b"106\n"), [b"106"]);
        assert_eq!(envelopes(b"hello\n"), [b"hello\n"]);
        assert!(envelopes(b" \n").is_empty());
        assert!(envelopes(b"").is_empty());
    }
}
