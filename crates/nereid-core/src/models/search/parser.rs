//! Reads a filter or an order, token by token.

use chrono::{DateTime, NaiveDate, Utc};

use super::{
    Comparator, Condition, FIELDS, Field, KNOWN_FIELDS, Operand, SyntaxError,
    lexer::{Lexer, Token},
};
use crate::{limits, models::ApprovalStatus, words::UnknownWord};

/// Reads tokens one by one, knowing where the last one began.
pub(super) struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<(usize, Token)>>,
    at: usize,
    end: usize,
}

impl Parser {
    pub(super) fn new(text: &str) -> Result<Self, SyntaxError> {
        if text.len() > limits::MAX_FILTER_LEN {
            let (len, max) = (text.len(), limits::MAX_FILTER_LEN);
            let detail = format!("{len} bytes are more than the {max} allowed");
            return Err(SyntaxError { at: 1, detail });
        }
        let tokens = Lexer::new(text).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            tokens: tokens.into_iter().peekable(),
            at: 1,
            end: text.chars().count() + 1,
        })
    }

    pub(super) fn peek(&mut self) -> Option<&Token> {
        self.tokens.peek().map(|(_, token)| token)
    }

    pub(super) fn next(&mut self) -> Option<Token> {
        let token = self.tokens.next();
        self.at = token.as_ref().map_or(self.end, |(at, _)| *at);
        token.map(|(_, token)| token)
    }

    pub(super) fn error(&self, detail: &str) -> SyntaxError {
        SyntaxError {
            at: self.at,
            detail: detail.to_owned(),
        }
    }

    pub(super) fn unexpected(&self, found: &Token, expected: &str) -> SyntaxError {
        self.error(&format!("{found} where {expected} is expected"))
    }

    /// Takes the next token, which must be there.
    fn expect(&mut self, expected: &str) -> Result<Token, SyntaxError> {
        let token = self.next();
        token.ok_or_else(|| self.error(&format!("the end where {expected} is expected")))
    }

    pub(super) fn condition(&mut self) -> Result<Condition, SyntaxError> {
        let field = self.field()?;
        let comparator = self.comparator(&field)?;
        let operand = self.operand(&field)?;
        Ok(Condition {
            field,
            comparator,
            operand,
        })
    }

    pub(super) fn field(&mut self) -> Result<Field, SyntaxError> {
        let word = match self.expect("a field")? {
            Token::Word(word) => word,
            other => return Err(self.unexpected(&other, "a field")),
        };
        let at = self.at;
        let lower = word.to_ascii_lowercase();
        if self.peek() == Some(&Token::Dot) {
            self.next();
            let make = match lower.as_str() {
                "metrics" | "metric" => Field::Metric,
                "tags" | "tag" => Field::Tag,
                _ => return Err(unknown_field(at, &word)),
            };
            return Ok(make(self.key()?));
        }
        let known = FIELDS.iter().find(|(name, _)| *name == lower);
        let (_, field) = known.ok_or_else(|| unknown_field(at, &word))?;
        Ok(field.clone())
    }

    /// Reads what stands behind `metrics.` or `tags.`; a bare key may hold dots.
    fn key(&mut self) -> Result<String, SyntaxError> {
        let mut key = match self.expect("a key")? {
            Token::Word(word) => word,
            Token::Quoted(key) | Token::Text(key) if !key.is_empty() => return Ok(key),
            other => return Err(self.unexpected(&other, "a key")),
        };
        while self.peek() == Some(&Token::Dot) {
            self.next();
            match self.expect("the rest of the key")? {
                Token::Word(word) => key = format!("{key}.{word}"),
                other => return Err(self.unexpected(&other, "the rest of the key")),
            }
        }
        Ok(key)
    }

    fn comparator(&mut self, field: &Field) -> Result<Comparator, SyntaxError> {
        let expected = if field.is_number() {
            "=, !=, <, <=, > or >="
        } else {
            "=, !=, LIKE or ILIKE"
        };
        let comparator = match self.expect(expected)? {
            Token::Comparator(comparator) => comparator,
            Token::Word(word) if word.eq_ignore_ascii_case("like") => Comparator::Like,
            Token::Word(word) if word.eq_ignore_ascii_case("ilike") => Comparator::Ilike,
            other => return Err(self.unexpected(&other, expected)),
        };
        let fits = match comparator {
            Comparator::Equal | Comparator::NotEqual => true,
            Comparator::Like | Comparator::Ilike => !field.is_number(),
            _ => field.is_number(),
        };
        if fits {
            Ok(comparator)
        } else {
            let field = field.as_str();
            Err(self.error(&format!("{field} is compared by {expected}")))
        }
    }

    fn operand(&mut self, field: &Field) -> Result<Operand, SyntaxError> {
        let expected = match field {
            Field::CreatedAt => "a time in quotes, such as '2026-01-31' or '2026-01-31T12:00:00Z'",
            field if field.is_number() => "a number",
            _ => "text in quotes",
        };
        match (self.expect(expected)?, field) {
            (Token::Text(text), Field::CreatedAt) => {
                let time = time(&text).ok_or_else(|| {
                    self.error(&format!("{text:?} is no time; expected is {expected}"))
                })?;
                Ok(Operand::Number(time))
            }
            // MLflow's clients send milliseconds since 1970.
            (Token::Number(ms), Field::CreatedAt) => Ok(Operand::Number(ms * 1000.0)),
            (Token::Number(number), field) if field.is_number() => Ok(Operand::Number(number)),
            (Token::Text(text), Field::Approval) => {
                let known: Result<ApprovalStatus, UnknownWord> = text.parse();
                known.map_err(|e| self.error(&e.to_string()))?;
                Ok(Operand::Text(text))
            }
            (Token::Text(text), field) if !field.is_number() => Ok(Operand::Text(text)),
            (other, _) => Err(self.unexpected(&other, expected)),
        }
    }
}

fn unknown_field(at: usize, word: &str) -> SyntaxError {
    let shown: String = word.chars().take(64).collect();
    let detail = format!("{shown:?} is no field; known are {KNOWN_FIELDS}");
    SyntaxError { at, detail }
}

/// Reads a date or a time with its zone, as microseconds since 1970.
fn time(text: &str) -> Option<f64> {
    let time: DateTime<Utc> = if let Ok(day) = text.parse::<NaiveDate>() {
        day.and_hms_opt(0, 0, 0)?.and_utc()
    } else {
        DateTime::parse_from_rfc3339(text).ok()?.to_utc()
    };
    #[expect(clippy::cast_precision_loss, reason = "exact until the year 2255")]
    let micros = time.timestamp_micros() as f64;
    Some(micros)
}
