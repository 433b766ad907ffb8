//! Frames on the socket: a length of 4 bytes, most significant first, and so many bytes.

use std::io::{self, ErrorKind, Read, Write};

/// The largest frame in bytes: room for the largest record, whatever its characters are in JSON.
pub(super) const MAX_FRAME: usize = 64 << 20;

pub(super) fn write_frame(to: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).ok();
    let length = length.filter(|_| frame.len() <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::from(ErrorKind::FileTooLarge))?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(frame)?;
    to.flush()
}

/// The next frame; `None` if the other side ended between two of them. Memory is taken as bytes come, not as they are
/// announced.
pub(super) fn read_frame(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if !read_or_end(from, &mut length)? {
        return Ok(None);
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(ErrorKind::FileTooLarge.into());
    }
    let mut frame = Vec::new();
    let most = u64::try_from(length).unwrap_or(u64::MAX);
    from.take(most).read_to_end(&mut frame)?;
    if frame.len() == length {
        Ok(Some(frame))
    } else {
        Err(ErrorKind::UnexpectedEof.into())
    }
}

/// Fills `bytes`. `false` if there was not even one.
fn read_or_end(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    loop {
        match from.read(bytes) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                from.read_exact(bytes.get_mut(count..).unwrap_or_default())?;
                return Ok(true);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_frame_by_frame_until_the_end() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, b"one").unwrap();
        write_frame(&mut bytes, b"").unwrap();
        assert_eq!(bytes, b"\0\0\0\x03one\0\0\0\0");
        let mut from = bytes.as_slice();
        assert_eq!(read_frame(&mut from).unwrap().unwrap(), b"one");
        assert_eq!(read_frame(&mut from).unwrap().unwrap(), b"");
        assert!(read_frame(&mut from).unwrap().is_none());
    }

    #[test]
    fn a_frame_that_is_cut_or_too_long_is_an_error_and_never_a_shorter_frame() {
        for cut in [&b"\0"[..], b"\0\0\0", b"\0\0\0\x03", b"\0\0\0\x03on"] {
            let error = read_frame(&mut &*cut).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{cut:?}");
        }
        for length in [u32::MAX, u32::try_from(MAX_FRAME).unwrap() + 1] {
            let error = read_frame(&mut length.to_be_bytes().as_slice()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        }
        let huge = vec![0; MAX_FRAME + 1];
        let mut bytes = Vec::new();
        assert!(write_frame(&mut bytes, &huge).is_err());
        assert!(bytes.is_empty());
    }
}
