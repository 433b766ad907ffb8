//! The protobuf code: committed, renewed by `cargo xtask codegen`, private to this crate.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    clippy::must_use_candidate,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    reason = "generated; three messages are parsed by hand, and generated for the tests that compare"
)]

pub(crate) mod sprag {
    pub(crate) mod v1 {
        include!("sprag.v1.rs");
    }
    pub(crate) mod relay {
        pub(crate) mod v1 {
            include!("sprag.relay.v1.rs");
        }
    }
}
