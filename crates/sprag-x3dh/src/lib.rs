//! PQXDH and X3DH handshakes, prekeys and device lists of Sprag/1
#![forbid(unsafe_code)]
