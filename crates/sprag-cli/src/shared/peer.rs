//! Who is at the other end of a socket, as the kernel says.

use std::io;
use std::os::unix::net::UnixStream;

/// The user who runs the process at the other end.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn uid(stream: &UnixStream) -> io::Result<u32> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    Ok(getsockopt(stream, PeerCredentials)?.uid())
}

/// The user who runs the process at the other end.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn uid(stream: &UnixStream) -> io::Result<u32> {
    Ok(nix::unistd::getpeereid(stream)?.0.as_raw())
}

/// The user who runs this process.
pub(super) fn ours() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_that_both_ends_of_our_own_socket_are_ours() {
        let (one, other) = UnixStream::pair().unwrap();
        assert_eq!(uid(&one).unwrap(), ours());
        assert_eq!(uid(&other).unwrap(), ours());
    }
}
