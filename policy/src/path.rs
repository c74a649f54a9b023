//! Where in an object something stands.

use std::fmt;

/// A field of an object, by way of the fields around it. Written out only where something is wrong.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    piece: Piece<'a>,
}

#[derive(Clone, Copy)]
enum Piece<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    pub fn root(field: &'a str) -> Self {
        Self { parent: None, piece: Piece::Field(field) }
    }

    pub fn field(&'a self, field: &'a str) -> Self {
        Self { parent: Some(self), piece: Piece::Field(field) }
    }

    pub fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), piece: Piece::Index(index) }
    }

    pub fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), piece: Piece::Key(key) }
    }

    /// Nobody knows this field.
    pub fn unknown(&self) -> FieldError {
        self.wrong("there is no such field; is it misspelt?")
    }

    /// Something is wrong here.
    pub fn wrong(&self, what: impl Into<String>) -> FieldError {
        FieldError { field: self.to_string(), what: what.into() }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.piece {
            Piece::Field(name) if self.parent.is_none() => f.write_str(name),
            Piece::Field(name) => write!(f, ".{name}"),
            Piece::Index(index) => write!(f, "[{index}]"),
            Piece::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// Something is wrong in an object.
#[derive(Debug)]
pub(crate) struct FieldError {
    pub field: String,
    pub what: String,
}

#[cfg(test)]
mod tests {
    use super::Path;

    #[test]
    fn fields_are_written_as_the_api_server_writes_them() {
        let spec = Path::root("spec");
        let ingress = spec.field("ingress");
        let rule = ingress.index(2);
        let labels = rule.field("matchLabels");
        assert_eq!(labels.key("a/b").to_string(), "spec.ingress[2].matchLabels[a/b]");
    }
}
