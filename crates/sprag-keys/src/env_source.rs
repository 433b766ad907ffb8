//! Keys in the environment.

use zeroize::Zeroizing;

use crate::{KeyError, KeyId, KeySource, KeyVersion, SourceError, VersionedKey, encoding, sys};

/// The keys of Lumera in the environment: `LUMERA_KEY_<NAME IN UPPER CASE>` in base64, and, under the name
/// [`LUMERA_PLUGIN`](Self::LUMERA_PLUGIN), `LUMERA_MEMORY_KEY` as 64 hexadecimal digits.
///
/// There is one version of each, 1. Two names that differ in case only are one variable, and a name that no shell can
/// set (with `-`, `.` or `:`) can be set by programs. Others who may look at this process, and its children, can read
/// the keys too.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct EnvSource;

impl EnvSource {
    /// The name that Lumera's plugin writes beside what it sealed.
    pub const LUMERA_PLUGIN: &'static str = "env:LUMERA_MEMORY_KEY";

    /// The environment of this process.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl KeySource for EnvSource {
    fn current(&self, id: &KeyId) -> Result<VersionedKey, SourceError> {
        let key = read(id, sys::read_env)?;
        Ok(VersionedKey::new(id.clone(), KeyVersion::FIRST, &key))
    }

    fn by_version(&self, id: &KeyId, version: KeyVersion) -> Result<VersionedKey, SourceError> {
        let key = self.current(id)?;
        if version == KeyVersion::FIRST {
            Ok(key)
        } else {
            Err(SourceError::NotFound)
        }
    }
}

fn read(
    id: &KeyId,
    variable: impl FnOnce(&str) -> Result<Zeroizing<Vec<u8>>, KeyError>,
) -> Result<Zeroizing<[u8; 32]>, SourceError> {
    let from = |name: &str| match variable(name) {
        Ok(text) => Ok(text),
        Err(KeyError::NotFound) => Err(SourceError::NotFound),
        Err(_) => Err(SourceError::Malformed),
    };
    let key = if id.as_str() == EnvSource::LUMERA_PLUGIN {
        encoding::hex(&from("LUMERA_MEMORY_KEY")?)
    } else {
        let name = format!("LUMERA_KEY_{}", id.as_str().to_ascii_uppercase());
        encoding::base64(&from(&name)?)
    };
    key.ok_or(SourceError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE64: &str = "Dx4tPEtaaXiHlqW0w9Lh8A8eLTxLWml4h5altMPS4fA=";
    const HEX: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

    /// Reads in an environment with these variables. The real one is not ours to change: it has no lock.
    fn key(id: &str, variables: &[(&str, &str)]) -> Result<[u8; 32], SourceError> {
        let id = KeyId::new(id).unwrap();
        let key = read(&id, |name| {
            let variable = variables.iter().find(|(known, _)| *known == name);
            let (_, text) = variable.ok_or(KeyError::NotFound)?;
            Ok(Zeroizing::new(text.as_bytes().to_vec()))
        })?;
        Ok(*key)
    }

    #[test]
    fn a_key_of_lumera_is_found_under_its_name_in_upper_case() {
        let expected: [u8; 32] = hex::decode(HEX).unwrap().try_into().unwrap();
        let set = [("LUMERA_KEY_DEFAULT_2", BASE64), ("LUMERA_KEY_A-B", BASE64)];
        assert_eq!(key("default_2", &set).unwrap(), expected);
        assert_eq!(key("a-b", &set).unwrap(), expected);
        let set = [("LUMERA_MEMORY_KEY", HEX)];
        assert_eq!(key(EnvSource::LUMERA_PLUGIN, &set).unwrap(), expected);
    }

    #[test]
    fn a_variable_that_is_not_set_is_no_key_and_none_is_made() {
        let set = [("LUMERA_KEY_DEFAULT", BASE64)];
        for id in ["other", "default2", EnvSource::LUMERA_PLUGIN] {
            assert!(matches!(key(id, &set), Err(SourceError::NotFound)), "{id}");
        }
        let id = KeyId::new("sprag_no_such_key").unwrap();
        for _ in 0..2 {
            assert!(matches!(
                EnvSource::new().current(&id),
                Err(SourceError::NotFound)
            ));
        }
        let version = KeyVersion::new(2).unwrap();
        assert!(matches!(
            EnvSource::new().by_version(&id, version),
            Err(SourceError::NotFound)
        ));
    }

    #[test]
    fn a_text_in_another_form_is_malformed() {
        let wrong = [
            "",
            HEX,
            "c2hvcnQ=",
            &BASE64[..43],
            &format!("{BASE64}{BASE64}"),
        ];
        for text in wrong {
            let set = [("LUMERA_KEY_A", text)];
            assert!(
                matches!(key("a", &set), Err(SourceError::Malformed)),
                "{text}"
            );
        }
        for text in ["", BASE64, &HEX[..62]] {
            let set = [("LUMERA_MEMORY_KEY", text)];
            assert!(matches!(
                key(EnvSource::LUMERA_PLUGIN, &set),
                Err(SourceError::Malformed)
            ));
        }
    }
}
