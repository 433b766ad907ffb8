//! Wire formats of Sprag: strict protobuf frames, and what client and server say to each other
#![forbid(unsafe_code)]
