//! The language as users write it, and as nobody should.

use proptest::prelude::*;

use super::*;

fn number(field: Field, comparator: Comparator, n: f64) -> Condition {
    Condition {
        field,
        comparator,
        operand: Operand::Number(n),
    }
}

fn text(field: Field, comparator: Comparator, s: &str) -> Condition {
    Condition {
        field,
        comparator,
        operand: Operand::Text(s.to_owned()),
    }
}

#[test]
fn reads_what_mlflow_users_write() {
    let filter: Filter = "metrics.val_accuracy >= 0.97 and tags.team = 'x'"
        .parse()
        .unwrap();
    let metric = Field::Metric("val_accuracy".to_owned());
    let team = Field::Tag("team".to_owned());
    let expected = [
        number(metric, Comparator::AtLeast, 0.97),
        text(team, Comparator::Equal, "x"),
    ];
    assert_eq!(filter.0, expected);

    let filter: Filter = "metrics.`top 5` < -1e-3 AND tags.\"a'b\" != 'it''s' AND name ILIKE \"Dig%\" and metrics.a.b==1"
        .parse()
        .unwrap();
    let expected = [
        number(Field::Metric("top 5".to_owned()), Comparator::Less, -1e-3),
        text(Field::Tag("a'b".to_owned()), Comparator::NotEqual, "it's"),
        text(Field::Model, Comparator::Ilike, "Dig%"),
        number(Field::Metric("a.b".to_owned()), Comparator::Equal, 1.0),
    ];
    assert_eq!(filter.0, expected);

    let filter: Filter = "created_at >= '1970-01-02' and created_at < '1970-01-01T01:00:00+01:00'"
        .parse()
        .unwrap();
    let expected = [
        number(Field::CreatedAt, Comparator::AtLeast, 86_400e6),
        number(Field::CreatedAt, Comparator::Less, 0.0),
    ];
    assert_eq!(filter.0, expected);
    assert_eq!("  ".parse::<Filter>().unwrap(), Filter::default());
}

#[test]
fn orders_by_one_number() {
    let order: Order = "metrics.val_accuracy DESC".parse().unwrap();
    assert_eq!(order.field, Field::Metric("val_accuracy".to_owned()));
    assert!(order.descending);
    assert!(!"bytes".parse::<Order>().unwrap().descending);
    for bad in ["", "tags.team", "bytes up", "bytes desc, version", "desc"] {
        assert!(bad.parse::<Order>().is_err(), "{bad}");
    }
}

#[test]
fn mistakes_say_where_and_what_would_be_right() {
    for (filter, at, part) in [
        ("metrics.a >", 12, "a number is expected"),
        ("metrics.a > 'x'", 13, "a number is expected"),
        ("metrics.a like 1", 11, "compared by"),
        ("tags.ü = 'x'", 6, "means nothing"),
        ("colour = 'x'", 1, "known are"),
        ("params.a = 'x'", 1, "known are"),
        ("tags.a = 1", 10, "text in quotes"),
        ("tags.a > 'x'", 8, "compared by"),
        ("tags.a = 'x", 10, "has no end"),
        ("tags.a = 'x' or tags.a = 'y'", 14, "and"),
        ("tags.a = 'x' tags.b = 'y'", 14, "and"),
        ("tags.a = 'x' and", 17, "a field"),
        ("version = 1e999", 11, "finite"),
        ("version = NaN", 11, "a number"),
        ("version =! 1", 9, "compares nothing"),
        ("approval = 'fine'", 12, "pending, approved, rejected"),
        ("created_at > 'soon'", 14, "no time"),
        ("'ä' = 1", 1, "a field"),
        ("version = 1; drop table models", 12, "means nothing"),
    ] {
        let error = filter.parse::<Filter>().unwrap_err();
        assert_eq!(error.at, at, "{filter}: {error}");
        assert!(error.detail.contains(part), "{filter}: {error}");
    }
    let many = vec!["version = 1"; limits::MAX_CONDITIONS + 1].join(" and ");
    assert!(many.parse::<Filter>().is_err());
    let long = format!("tags.a = '{}'", "x".repeat(limits::MAX_FILTER_LEN));
    assert!(long.parse::<Filter>().is_err());
}

proptest! {
    #[test]
    fn never_panics_and_points_into_the_text(filter in "(?s).{0,60}") {
        let inside = |at: usize| (1..=filter.chars().count() + 1).contains(&at);
        if let Err(e) = filter.parse::<Filter>() {
            prop_assert!(inside(e.at), "{e}");
        }
        if let Err(e) = filter.parse::<Order>() {
            prop_assert!(inside(e.at), "{e}");
        }
    }

    /// Of the language's own pieces, so that it gets far.
    #[test]
    fn never_panics_on_pieces_in_any_order(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "metrics", "tags", ".", "`a b`", "'x'", "\"y\"", "1.5", "-", ">=", "like", "and", " ", "version", "'",
        ]), 0..20)
    ) {
        let filter = pieces.concat();
        if let Err(e) = filter.parse::<Filter>() {
            prop_assert!((1..=filter.chars().count() + 1).contains(&e.at), "{filter}: {e}");
        }
    }

    #[test]
    fn any_key_and_text_comes_back_as_it_was(key in "[^\0]{1,40}", value in "[^\0]{0,40}", n in -1e300..1e300_f64) {
        let written = format!(
            "tags.`{}` = '{}' and metrics.`{}` != {n}",
            key.replace('`', "``"), value.replace('\'', "''"), key.replace('`', "``"),
        );
        let filter: Filter = written.parse().unwrap();
        prop_assert_eq!(&filter.0[0], &text(Field::Tag(key.clone()), Comparator::Equal, &value));
        prop_assert_eq!(&filter.0[1], &number(Field::Metric(key), Comparator::NotEqual, n));
    }
}
