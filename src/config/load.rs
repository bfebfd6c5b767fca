//! The layers, put on one after another. The configuration is read anew after each, so the layer
//! that breaks it is the one to blame.
//!
//! The layers are TOML trees and are merged as such: a number stays a number, so that `1.5` or
//! `"007"` where a whole number belongs is refused instead of rounded or converted in silence.

use std::{
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{Config, ConfigError, DatabaseUrl, Origin, masked};

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "rowcast.toml";

const DEFAULTS: &str = include_str!("../../rowcast.example.toml");

const VARIABLE_PREFIX: &str = "ROWCAST__";

/// What flags set; the last layer.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--database`: `database.url`
    pub database: Option<String>,
    /// `--bus`: `bus.url`
    pub bus: Option<String>,
    /// `--listen` of `serve`: `server.listen`
    pub listen: Option<String>,
    /// `--listen` of `produce`: `produce.listen`
    pub produce_listen: Option<String>,
}

/// Without what the URLs let in with.
impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overrides")
            .field("database", &self.database.as_deref().map(masked))
            .field("bus", &self.bus.as_deref().map(masked))
            .field("listen", &self.listen)
            .field("produce_listen", &self.produce_listen)
            .finish()
    }
}

/// Reads the configuration of this process: defaults, then `file` or else [`DEFAULT_FILE`] where
/// that exists, then the environment, then `flags`.
///
/// # Errors
/// [`ConfigError`] for the first layer that is wrong; a `file` that does not exist is one. Also
/// where others could reach the listener and nobody has written down that they may.
pub fn load(file: Option<&Path>, flags: &Overrides) -> Result<Config, ConfigError> {
    let layers = match read(file)? {
        Some((path, text)) => Layers::defaults()?.file(path, &text)?,
        None => Layers::defaults()?,
    };
    layers.rest(std::env::vars_os(), flags)?.admit()
}

/// Reads which database is meant without any file: for `rowcast init`, which writes that file.
///
/// # Errors
/// As [`load`], but without a listener there is nobody to admit.
pub fn database(flags: &Overrides) -> Result<DatabaseUrl, ConfigError> {
    let layers = Layers::defaults()?.rest(std::env::vars_os(), flags)?;
    Ok(layers.config.database.url)
}

fn read(file: Option<&Path>) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE)).to_owned();
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(err) if err.kind() == io::ErrorKind::NotFound && file.is_none() => Ok(None),
        Err(err) => Err(ConfigError::new(
            Origin::File(path),
            "",
            format!("cannot be read: {err}"),
        )),
    }
}

/// What has been put together so far.
struct Layers {
    tree: Table,
    config: Config,
}

impl Layers {
    fn defaults() -> Result<Self, ConfigError> {
        let tree = parse(&Origin::Defaults, DEFAULTS)?;
        let mut config = typed(&Origin::Defaults, tree.clone())?;
        config.topics_are_demo = true;
        Ok(Self { tree, config })
    }

    fn file(self, path: PathBuf, text: &str) -> Result<Self, ConfigError> {
        let origin = Origin::File(path.clone());
        let table = parse(&origin, text)?;
        let mut layers = self.put(origin, table)?;
        layers.config.file = Some(path);
        Ok(layers)
    }

    /// Every variable and every flag is a layer of its own, so that it can be named.
    fn rest(
        mut self,
        variables: impl Iterator<Item = (OsString, OsString)>,
        flags: &Overrides,
    ) -> Result<Self, ConfigError> {
        for (name, text) in ours(variables)? {
            let table = self.variable(&name, &text)?;
            self = self.put(Origin::Variable(name), table)?;
        }
        let flags = [
            ("--database", ["database", "url"], &flags.database),
            ("--bus", ["bus", "url"], &flags.bus),
            ("--listen", ["server", "listen"], &flags.listen),
            ("--listen", ["produce", "listen"], &flags.produce_listen),
        ];
        for (flag, path, text) in flags {
            if let Some(text) = text {
                self = self.put(Origin::Flag(flag), nest(&path, text.clone().into()))?;
            }
        }
        Ok(self)
    }

    fn put(mut self, origin: Origin, layer: Table) -> Result<Self, ConfigError> {
        let demo = self.config.topics_are_demo && !layer.contains_key("topics");
        if let Some(Value::Table(server)) = layer.get("server") {
            let keys = server.keys().map(|key| (key.clone(), origin.clone()));
            self.config.written.extend(keys);
        }
        self.tree = merge(&origin, self.tree, layer)?;
        self.config = Config {
            file: self.config.file.take(),
            written: std::mem::take(&mut self.config.written),
            topics_are_demo: demo,
            ..typed(&origin, self.tree.clone())?
        };
        Ok(self)
    }

    /// The tree that a variable stands for. Its text becomes what the key holds so far.
    fn variable(&self, name: &str, text: &str) -> Result<Table, ConfigError> {
        let key = name[VARIABLE_PREFIX.len()..].to_ascii_lowercase();
        let path: Vec<_> = key.split("__").collect();
        if path[0] == "topics" {
            let problem = "topics cannot be set by environment variables; write them in the file";
            return Err(ConfigError::new(
                Origin::Variable(name.into()),
                "topics",
                problem,
            ));
        }
        let value = match at(&self.tree, &path) {
            Some(Value::Integer(_)) => text.parse().ok().map(Value::Integer),
            Some(Value::Array(_)) => Some(list(text)),
            Some(Value::String(_)) => None,
            // A key without a default is a switch; a key that nobody knows is refused later.
            _ => text.parse().ok().map(Value::Boolean),
        };
        Ok(nest(&path, value.unwrap_or_else(|| text.into())))
    }

    /// Holds the listener against the rule of docs/protocol.md §5, and what needs each other together.
    fn admit(self) -> Result<Config, ConfigError> {
        self.config.fits()?;
        let server = &self.config.server;
        let alone = match (&server.tls_cert, &server.tls_key) {
            (Some(_), None) => Some(("tls_cert", "tls_key")),
            (None, Some(_)) => Some(("tls_key", "tls_cert")),
            _ => None,
        };
        if let Some((given, missing)) = alone {
            let problem =
                format!("TLS takes a certificate and its key, and server.{missing} is not set");
            return Err(self.config.wrong_server(given, problem));
        }
        let (listen, auth) = (&server.listen, &self.config.auth);
        let Some(exposing) = server
            .exposing()
            .filter(|_| !auth.anonymous && !auth.judges())
        else {
            return Ok(self.config);
        };
        let problem = match exposing {
            "listen" => format!(
                "on {listen} other machines could connect, and each of them would see every topic"
            ),
            _ => format!(
                "through a proxy on {listen} other machines could connect, and each of them would see every \
                 topic"
            ),
        };
        let advice = "say in [auth] how they are told apart, such as with auth.jwks_url; or, if that is \
                      meant, write auth.anonymous = true\n  there, or set ROWCAST__AUTH__ANONYMOUS=true";
        Err(self.config.wrong_server(exposing, problem).advise(advice))
    }
}

fn parse(origin: &Origin, text: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>().map_err(|err| {
        let origin = match (origin, err.span()) {
            (Origin::File(file), Some(span)) => {
                let before = &text[..text.floor_char_boundary(span.start)];
                let last = before.rsplit('\n').next().unwrap_or(before);
                Origin::Place {
                    file: file.clone(),
                    line: before.matches('\n').count() + 1,
                    column: last.chars().count() + 1,
                }
            }
            _ => origin.clone(),
        };
        let message = err.message().lines().collect::<Vec<_>>().join("; ");
        ConfigError::new(origin, "", message)
    })
}

fn typed(origin: &Origin, tree: Table) -> Result<Config, ConfigError> {
    serde_path_to_error::deserialize(tree).map_err(|err| {
        let path = match err.path().to_string() {
            root if root == "." => String::new(),
            path => path,
        };
        ConfigError::from_serde(origin.clone(), path, err.inner().message())
    })
}

/// A TOML tree as the `config` crate takes it, value for value: its own reader of TOML would
/// leave out empty lists.
#[derive(Debug, Clone)]
struct Layer(Table);

impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<config::Map<String, config::Value>, config::ConfigError> {
        let pairs = self.0.iter().map(|(key, value)| (key.clone(), kind(value)));
        Ok(pairs
            .map(|(key, kind)| (key, config::Value::new(None, kind)))
            .collect())
    }
}

fn kind(value: &Value) -> config::ValueKind {
    let inner = |value| config::Value::new(None, kind(value));
    match value {
        Value::String(text) => text.clone().into(),
        Value::Integer(integer) => (*integer).into(),
        Value::Float(float) => (*float).into(),
        Value::Boolean(flag) => (*flag).into(),
        Value::Datetime(time) => time.to_string().into(),
        Value::Array(list) => list.iter().map(inner).collect::<Vec<_>>().into(),
        Value::Table(table) => {
            let pairs = table.iter().map(|(key, value)| (key.clone(), inner(value)));
            config::ValueKind::Table(pairs.collect())
        }
    }
}

/// Puts a layer over a tree. Tables are joined; anything else, a list of topics too, is replaced.
fn merge(origin: &Origin, tree: Table, layer: Table) -> Result<Table, ConfigError> {
    let layers = config::Config::builder()
        .add_source(Layer(tree))
        .add_source(Layer(layer));
    let merged = layers.build().and_then(config::Config::try_deserialize);
    merged.map_err(|err| ConfigError::new(origin.clone(), "", err.to_string()))
}

fn at<'a>(tree: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter()
        .try_fold(tree.get(*first)?, |value, key| value.get(key))
}

fn nest(path: &[&str], value: Value) -> Table {
    let wrap = |value, key: &&str| Value::Table(Table::from_iter([((*key).to_owned(), value)]));
    match path.iter().rev().fold(value, wrap) {
        Value::Table(table) => table,
        _ => Table::new(),
    }
}

/// `a, b`
fn list(text: &str) -> Value {
    let items = text.split(',').map(str::trim);
    Value::Array(
        items
            .filter(|item| !item.is_empty())
            .map(Into::into)
            .collect(),
    )
}

/// Our variables, by name. Kubernetes sets `ROWCAST_PORT` and the like for a service of that
/// name, therefore two underscores.
fn ours(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut found = Vec::new();
    for (name, text) in variables {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with(VARIABLE_PREFIX) {
            let text = text.into_string().map_err(|_| {
                ConfigError::new(Origin::Variable(name.clone()), "", "is not valid UTF-8")
            })?;
            found.push((name, text));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
pub(super) fn load_from(
    file: Option<(&str, &str)>,
    variables: &[(&str, &str)],
    flags: &Overrides,
) -> Result<Config, ConfigError> {
    let layers = Layers::defaults()?;
    let layers = match file {
        Some((path, text)) => layers.file(path.into(), text)?,
        None => layers,
    };
    let variables = variables
        .iter()
        .map(|(name, text)| (name.into(), text.into()));
    layers.rest(variables, flags)?.admit()
}
