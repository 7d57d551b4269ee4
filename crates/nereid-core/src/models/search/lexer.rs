//! Tokens of a filter.

use std::{fmt, iter::Peekable, str::CharIndices};

use super::{Comparator, SyntaxError};
use crate::limits;

/// A piece of a filter.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A bare word.
    Word(String),
    /// A key in backticks.
    Quoted(String),
    /// Text in single or double quotes.
    Text(String),
    /// A finite number.
    Number(f64),
    /// A sign that compares.
    Comparator(Comparator),
    /// What separates prefix and key.
    Dot,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) | Self::Quoted(word) => write!(f, "{word:?}"),
            Self::Text(text) => write!(f, "the text {text:?}"),
            Self::Number(n) => write!(f, "the number {n}"),
            Self::Comparator(c) => c.fmt(f),
            Self::Dot => f.write_str("\".\""),
        }
    }
}

/// Cuts a filter into tokens, each with the character at which it begins, from 1.
pub(super) struct Lexer<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    /// Character to be read next, from 1.
    at: usize,
}

const fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '@')
}

const fn in_number(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-')
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            chars: text.char_indices().peekable(),
            at: 1,
        }
    }

    fn bump(&mut self) -> Option<(usize, char)> {
        let next = self.chars.next();
        self.at += usize::from(next.is_some());
        next
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    /// Takes characters as long as they are of a kind.
    fn take_while(&mut self, of_kind: impl Fn(char) -> bool) -> &'a str {
        let here = |lexer: &mut Self| lexer.chars.peek().map_or(lexer.text.len(), |(i, _)| *i);
        let start = here(self);
        while self.peek().is_some_and(&of_kind) {
            self.bump();
        }
        let end = here(self);
        self.text.get(start..end).unwrap_or_default()
    }

    fn token(&mut self, first: char) -> Result<Token, SyntaxError> {
        let at = self.at;
        let fail = |detail: String| Err(SyntaxError { at, detail });
        match first {
            '\'' | '"' => self.quoted(first).map(Token::Text),
            '`' => self.quoted('`').map(Token::Quoted),
            '.' => {
                self.bump();
                Ok(Token::Dot)
            }
            '=' | '!' | '<' | '>' => {
                let sign = self.take_while(|c| matches!(c, '=' | '!' | '<' | '>'));
                let comparator = match sign {
                    "==" => Ok(Comparator::Equal),
                    "<>" => Ok(Comparator::NotEqual),
                    sign => sign.parse(),
                };
                match comparator {
                    Ok(comparator) => Ok(Token::Comparator(comparator)),
                    Err(_) => fail(format!(
                        "{sign:?} compares nothing; known are =, !=, <, <=, >, >=, LIKE and ILIKE"
                    )),
                }
            }
            '0'..='9' | '+' | '-' => {
                let number = self.take_while(in_number);
                match number.parse::<f64>() {
                    Ok(n) if n.is_finite() => Ok(Token::Number(n)),
                    _ => fail(format!("{number:?} is no finite number")),
                }
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                let word = self.take_while(in_word);
                if word.len() > limits::MAX_FILTER_TEXT_LEN {
                    return fail(too_long(word.len()));
                }
                Ok(Token::Word(word.to_owned()))
            }
            c => fail(format!("{c:?} means nothing here")),
        }
    }

    /// Reads text in quotes; a quote within is written twice.
    fn quoted(&mut self, quote: char) -> Result<String, SyntaxError> {
        let at = self.at;
        self.bump();
        let mut text = String::new();
        loop {
            match self.bump() {
                None => {
                    let detail = format!("the quote {quote} that begins here has no end");
                    return Err(SyntaxError { at, detail });
                }
                Some((_, c)) if c == quote => {
                    if self.peek() != Some(quote) {
                        break;
                    }
                    self.bump();
                    text.push(quote);
                }
                // Postgres' text cannot hold it, so nothing stored is equal to it.
                Some((_, '\0')) => {
                    let detail = "a NUL character is not allowed".to_owned();
                    return Err(SyntaxError { at, detail });
                }
                Some((_, c)) => text.push(c),
            }
        }
        let len = text.chars().count();
        if len > limits::MAX_FILTER_TEXT_LEN {
            return Err(SyntaxError {
                at,
                detail: too_long(len),
            });
        }
        Ok(text)
    }
}

fn too_long(len: usize) -> String {
    let max = limits::MAX_FILTER_TEXT_LEN;
    format!("{len} characters are more than the {max} allowed")
}

impl Iterator for Lexer<'_> {
    type Item = Result<(usize, Token), SyntaxError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take_while(char::is_whitespace);
        let first = self.peek()?;
        let at = self.at;
        Some(self.token(first).map(|token| (at, token)))
    }
}
