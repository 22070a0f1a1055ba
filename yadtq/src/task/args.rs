//! Converts arguments between Rust values and JSON: writes them by position, with the names of their parameters, and reads
//! them by name, or by position if there are no names.

use std::borrow::Cow;

use serde::{
    Deserialize, Serialize,
    de::{Deserializer, Error as _, Visitor, value::Error as PlainError},
};
use serde_json::value::RawValue;
use thiserror::Error;

use super::state::MissingState;
use crate::{
    core::text::cut,
    error::Error,
    wire::envelope::{Args, MAX_NAME_BYTES},
};

/// Why arguments do not fit a task's parameters.
#[derive(Debug, Error)]
pub enum ArgsError {
    /// The JSON is neither an array nor an object.
    #[error("arguments are neither an array nor an object: {0}")]
    Shape(#[source] serde_json::Error),
    /// The names of the parameters are no array of strings.
    #[error("`params` is not an array of names: {0}")]
    Params(#[source] serde_json::Error),
    /// There are more or fewer names than arguments.
    #[error("`params` has {names} names for {given} arguments")]
    Names {
        /// Number of names that were sent.
        names: usize,
        /// Number of arguments that were sent.
        given: usize,
    },
    /// An argument has a wrong type.
    #[error("argument `{parameter}`: {source}")]
    Type {
        /// The parameter.
        parameter: &'static str,
        /// Why the value does not fit.
        source: serde_json::Error,
    },
    /// An argument is missing, and its parameter is not an `Option`.
    #[error("argument `{0}` is missing")]
    Missing(&'static str),
    /// The worker lacks a shared value.
    #[error(transparent)]
    State(MissingState),
    /// There are more arguments than parameters.
    #[error("{given} arguments for {expected} parameters")]
    TooMany {
        /// Number of arguments that were sent.
        given: usize,
        /// Number of parameters that the task has.
        expected: usize,
    },
    /// No parameter has that name.
    #[error("no parameter is named `{name}`; the parameters are: {parameters}")]
    Unknown {
        /// The name that was sent.
        name: String,
        /// The names that exist.
        parameters: String,
    },
}

/// Writes arguments as a JSON array.
#[derive(Debug)]
pub struct Writer {
    task: &'static str,
    /// The names of the parameters, as a JSON array.
    pub(crate) params: &'static str,
    json: Result<Vec<u8>, Error>,
}

impl Writer {
    /// Starts the array.
    #[must_use]
    pub fn new(task: &'static str, params: &'static str) -> Self {
        Self { task, params, json: Ok(vec![b'[']) }
    }

    /// Adds the next argument.
    #[must_use]
    pub fn push<T: Serialize + ?Sized>(mut self, parameter: &'static str, value: &T) -> Self {
        let Ok(json) = &mut self.json else { return self };
        if json.len() > 1 {
            json.push(b',');
        }
        if let Err(error) = serde_json::to_writer(json, value) {
            self.json = Err(Error::Argument {
                task: self.task.to_owned(),
                parameter: parameter.to_owned(),
                detail: error.to_string(),
            });
        }
        self
    }

    /// Ends the array.
    pub(crate) fn finish(self) -> Result<Box<RawValue>, Error> {
        let mut json = self.json?;
        json.push(b']');
        let text = String::from_utf8(json).expect("serde_json writes UTF-8");
        Ok(RawValue::from_string(text).expect("an array of JSON values is JSON"))
    }
}

/// Reads arguments, one parameter after the other, in their order.
#[derive(Debug)]
pub struct Reader<'a> {
    given: Given<'a>,
    next: usize,
}

#[derive(Debug)]
enum Given<'a> {
    ByPosition(Vec<&'a RawValue>),
    ByName(Vec<(Name<'a>, &'a RawValue)>),
}

/// The name of a parameter.
#[derive(Debug, Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Reader<'a> {
    /// Reads the outer array or object.
    pub(crate) fn new(args: &'a Args) -> Result<Self, ArgsError> {
        let json = args.as_str();
        if !json.starts_with('[') {
            let Pairs(pairs) = serde_json::from_str(json).map_err(ArgsError::Shape)?;
            return Ok(Self { given: Given::ByName(pairs), next: 0 });
        }
        let values: Vec<_> = serde_json::from_str(json).map_err(ArgsError::Shape)?;
        let Some(names) = args.params() else { return Ok(Self { given: Given::ByPosition(values), next: 0 }) };
        let names: Vec<Name<'a>> = serde_json::from_str(names).map_err(ArgsError::Params)?;
        if names.len() != values.len() {
            return Err(ArgsError::Names { names: names.len(), given: values.len() });
        }
        Ok(Self { given: Given::ByName(names.into_iter().zip(values).collect()), next: 0 })
    }

    /// Refuses arguments that belong to none of these parameters. One that is null may be left out, so its name need not be
    /// known: callers may have code with another `Option` already.
    ///
    /// # Errors
    /// There are too many arguments, or one has an unknown name.
    pub fn expect(&self, parameters: &[&'static str]) -> Result<(), ArgsError> {
        match &self.given {
            Given::ByPosition(values) if values.len() > parameters.len() => {
                Err(ArgsError::TooMany { given: values.len(), expected: parameters.len() })
            }
            Given::ByPosition(_) => Ok(()),
            Given::ByName(pairs) => {
                let mut unknown = pairs.iter().filter(|(Name(name), _)| !parameters.contains(&&**name));
                match unknown.find(|(_, value)| value.get() != "null") {
                    Some((Name(name), _)) => {
                        let name = cut(name.clone().into_owned(), MAX_NAME_BYTES);
                        Err(ArgsError::Unknown { name, parameters: parameters.join(", ") })
                    }
                    None => Ok(()),
                }
            }
        }
    }

    /// Reads the argument of the next parameter. If it is missing, an `Option` is `None`.
    ///
    /// # Errors
    /// The argument is missing, or has a wrong type.
    // With these bounds the compiler reports a wrong type at the argument, with a remedy: serde has a message for
    // `Deserialize` but not for `DeserializeOwned`. `Send` is needed because a run moves its arguments to another thread.
    pub fn take<T: for<'de> Deserialize<'de> + Send>(&mut self, parameter: &'static str) -> Result<T, ArgsError> {
        let value = self.given.find(parameter, self.next);
        self.next += 1;
        match value {
            Some(value) => serde_json::from_str(value.get()).map_err(|source| ArgsError::Type { parameter, source }),
            None => T::deserialize(Absent).map_err(|_| ArgsError::Missing(parameter)),
        }
    }
}

impl<'a> Given<'a> {
    /// The argument of a parameter; `None` if it is missing.
    fn find(&self, parameter: &str, position: usize) -> Option<&'a RawValue> {
        match self {
            Self::ByPosition(values) => values.get(position).copied(),
            Self::ByName(pairs) => {
                pairs.iter().rev().find(|(Name(name), _)| name == parameter).map(|&(_, value)| value)
            }
        }
    }
}

/// The argument of one parameter; `None` if it is missing.
pub(crate) fn find<'a>(args: &'a Args, parameter: &str, position: usize) -> Option<&'a RawValue> {
    Reader::new(args).ok()?.given.find(parameter, position)
}

/// The fields of an object, in their order, duplicates included.
struct Pairs<'a>(Vec<(Name<'a>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(Name<'de>, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array or an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Fields).map(Pairs)
    }
}

/// Stands for an argument that was not sent: an `Option` reads it as `None`, every other type refuses it.
struct Absent;

impl<'de> Deserializer<'de> for Absent {
    type Error = PlainError;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, PlainError> {
        Err(PlainError::custom("missing"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PlainError> {
        visitor.visit_none()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::envelope::Envelope;

    fn read(args: &str) -> Result<(i64, Option<String>), ArgsError> {
        let record = format!(r#"{{"task-id":"x","task":"t","args":{args}}}"#);
        let args = Envelope::read(&record.into()).unwrap().args;
        let mut reader = Reader::new(&args)?;
        reader.expect(&["a", "b"])?;
        Ok((reader.take("a")?, reader.take("b")?))
    }

    #[test]
    fn arguments_are_read_by_position_and_by_name() {
        assert_eq!(read(r#"[1,"x"]"#).unwrap(), (1, Some("x".to_owned())));
        assert_eq!(read(r#"{"b":"x","a":1}"#).unwrap(), (1, Some("x".to_owned())));
        assert_eq!(read("[1]").unwrap(), (1, None));
        assert_eq!(read(r#"{"a":1}"#).unwrap(), (1, None));
    }

    #[test]
    fn an_array_with_the_names_of_its_parameters_is_read_by_name() {
        let (one, both) = ((1, None), (1, Some("x".to_owned())));
        assert_eq!(read(r#"[1,"x"],"params":["a","b"]"#).unwrap(), both);
        assert_eq!(read(r#"["x",1],"params":["b","\u0061"]"#).unwrap(), both, "in the order of the caller");
        assert_eq!(read(r#"[1],"params":["a"]"#).unwrap(), one, "the caller does not know `b`");
        assert_eq!(read(r#"[null,1],"params":["new","a"]"#).unwrap(), one, "this worker does not know `new`");
        assert_eq!(read(r#"{"a":1},"params":["b"]"#).unwrap(), one, "an object has names of its own");
        assert_eq!(read(r#"[1],"params":null"#).unwrap(), one);
        let error = read(r#"[2,1],"params":["new","a"]"#).unwrap_err();
        assert_eq!(error.to_string(), "no parameter is named `new`; the parameters are: a, b");
    }

    #[test]
    fn errors_name_what_does_not_fit() {
        let says = |json| read(json).unwrap_err().to_string();
        assert_eq!(says("[]"), "argument `a` is missing");
        assert_eq!(says("[1,null,3]"), "3 arguments for 2 parameters");
        assert_eq!(says(r#"{"a":1,"c":2}"#), "no parameter is named `c`; the parameters are: a, b");
        assert_eq!(says(r#"[1,2],"params":["a"]"#), "`params` has 1 names for 2 arguments");
        assert_eq!(
            says(r#"[1],"params":[7]"#),
            "`params` is not an array of names: invalid type: integer `7`, expected a string at line 1 column 2"
        );
        assert!(says(r#"["one"]"#).starts_with("argument `a`: invalid type: string"), "{}", says(r#"["one"]"#));
        assert!(says("[1e999]").starts_with("argument `a`: number out of range"), "{}", says("[1e999]"));
    }

    #[test]
    fn arguments_are_written_by_position() {
        let new = || Writer::new("t", r#"["a","b"]"#);
        let json = new().push("a", &1).push("b", "x").finish().unwrap();
        assert_eq!(json.get(), r#"[1,"x"]"#);
        assert_eq!(new().finish().unwrap().get(), "[]");
        let bad = std::collections::HashMap::from([((1, 2), 3)]);
        let error = new().push("map", &bad).finish().unwrap_err();
        assert_eq!(error.to_string(), "argument `map` of task t cannot be sent as JSON: key must be a string");
    }
}
