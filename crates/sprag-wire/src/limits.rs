//! Every number of "The protocol", §2.1 and §10, that bounds bytes on the wire.

/// Plaintext of a body with its padding, in bytes: bounds memory before authentication.
pub const PLAINTEXT: usize = 1 << 20;
/// What an application may put into one message, in bytes; the rest is for riders.
pub const APPLICATION: usize = (1 << 20) - (1 << 17);
/// An `Envelope` frame, in bytes.
pub const ENVELOPE_FRAME: usize = (1 << 20) + 8192;
/// A `RatchetMessage` or `PreKeyMessage` frame, in bytes.
pub const MESSAGE_FRAME: usize = (1 << 20) + 4096;
/// A `PreKeyBundle` frame, in bytes.
pub const BUNDLE_FRAME: usize = 4096;
/// A `DeviceList` frame, in bytes.
pub const DEVICE_LIST_FRAME: usize = 2048;
/// A `LinkRequest` frame, in bytes.
pub const LINK_REQUEST_FRAME: usize = 512;
/// An encoded `Handshake`, in bytes.
pub const HANDSHAKE: usize = 4096;
/// A user id, in bytes of UTF-8.
pub const USER_ID: usize = 255;
/// Devices on one list.
pub const DEVICES: usize = 32;
/// Salts in `received`.
pub const RECEIVED: usize = 32;
/// SIDs in `reset`: all sessions that can be held with a device.
pub const RESET: usize = 41;
/// Users in a `sync`.
pub const SYNC_TO: usize = 256;
/// Salts in a `retry`.
pub const RETRY: usize = 64;
/// Generations in a key share.
pub const GENERATIONS: usize = 64;
/// One-time prekeys of each kind on the server.
pub const ONE_TIME_PRE_KEYS: usize = 100;
/// A reply of the directory, in bytes.
pub const REPLY: usize = 4 << 20;
/// The value of an object, in bytes.
pub const OBJECT: usize = 1 << 16;
/// The name of an object, in bytes. Ours have 32.
pub const OBJECT_NAME: usize = 64;
/// The tag of an object, in bytes.
pub const OBJECT_TAG: usize = 64;
/// A blob, in bytes. Longer files are split.
pub const BLOB: usize = 64 << 20;
/// The origin seal at the end of a message frame, in bytes: SID, chain index, tag.
pub const ORIGIN: usize = 16 + 4 + 16;
/// The signature at the end of a device list frame, in bytes.
pub const SIGNATURE: usize = 64;
