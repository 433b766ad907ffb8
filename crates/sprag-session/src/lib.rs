//! Sessions, trust, fan-out and prekey upkeep of Sprag as pure state machines over rows
#![forbid(unsafe_code)]
