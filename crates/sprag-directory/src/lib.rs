//! The directory a Sprag client asks: device lists, prekeys and envelopes, kept by any server
#![forbid(unsafe_code)]
