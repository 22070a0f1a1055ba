//! serde for types that are written as their text: as JSON strings, in paths of URLs, as keys of maps.

/// Implements `Serialize` and `Deserialize` for types with `as_str` and `FromStr`.
macro_rules! as_text {
    ($($type:ty),+) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

pub(super) use as_text;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt::Debug};

    use serde::{Serialize, de::DeserializeOwned};

    use crate::core::{
        lifecycle::Status,
        names::{Namespace, Queue, TaskId},
        priority::Priority,
    };

    fn assert_text<T: Serialize + DeserializeOwned + Debug + PartialEq>(value: T, text: &str) {
        let json = format!("\"{text}\"");
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
        assert_eq!(serde_json::from_str::<T>(&json).unwrap(), value);
        assert_eq!(
            serde_json::from_reader::<_, T>(json.as_bytes()).unwrap(),
            value,
            "without borrowing from the input"
        );
    }

    #[test]
    fn names_are_texts() {
        assert_text("order/17".parse::<TaskId>().unwrap(), "order/17");
        assert_text("mail".parse::<Queue>().unwrap(), "mail");
        assert_text("shop".parse::<Namespace>().unwrap(), "shop");
        assert_text(Priority::High, "high");
        assert_text(Status::Retrying, "retrying");
        let counts: BTreeMap<Queue, u32> = serde_json::from_str(r#"{"mail":3}"#).unwrap();
        assert_eq!(serde_json::to_string(&counts).unwrap(), r#"{"mail":3}"#);
    }

    #[test]
    fn what_cannot_be_parsed_is_refused_with_the_reason() {
        let refused = |error: serde_json::Error| error.to_string();
        assert!(refused(serde_json::from_str::<TaskId>("\"\"").unwrap_err()).contains("1 to 128 bytes"));
        assert!(refused(serde_json::from_str::<Queue>("\"dead\"").unwrap_err()).contains("reserved"));
        assert!(refused(serde_json::from_str::<Status>("\"done\"").unwrap_err()).contains("not a task status"));
        assert!(serde_json::from_str::<TaskId>("17").is_err());
    }
}
