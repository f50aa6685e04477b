//! What stands around hits: so many passages on both sides, or the section under the same heading. In the caller's snapshot.

use super::options::Expand;
use super::wire::{Context, Hit};
use sqlx::{PgConnection, Row};
use std::collections::HashMap;
use std::iter::Peekable;
use uuid::Uuid;

/// Passages on each side of a hit that a section is looked for in.
const SECTION_REACH: i32 = 80;

/// A passage of the version a hit is in, not the hit itself.
#[derive(Clone, Debug)]
struct Beside {
    is_before: bool,
    /// True under the hit's heading, or under one below it.
    is_inside: bool,
    tokens: u32,
    text: String,
}

/// Gives every hit what `expand` says of its surroundings.
pub(super) async fn surround(
    connection: &mut PgConnection,
    hits: &mut [Hit],
    expand: Expand,
) -> Result<(), sqlx::Error> {
    let reach = match expand {
        Expand::Neighbours(count) => count as i32,
        Expand::Parent(_) => SECTION_REACH,
    };
    let ids: Vec<Uuid> = hits.iter().map(|hit| hit.chunk_id.0).collect();
    let mut beside = beside(connection, &ids, reach).await?;
    for hit in hits {
        let beside = beside.remove(&hit.chunk_id.0).unwrap_or_default();
        hit.context = Some(match expand {
            Expand::Neighbours(_) => all(beside),
            Expand::Parent(tokens) => section(beside, tokens),
        });
    }
    Ok(())
}

fn all(beside: Vec<Beside>) -> Context {
    let mut context = Context::default();
    for passage in beside {
        if passage.is_before { &mut context.before } else { &mut context.after }.push(passage.text);
    }
    context
}

/// The passages next to the hit, one side after the other, while they are inside and fit into `tokens`. `beside` is in
/// the order of the text.
fn section(beside: Vec<Beside>, tokens: u32) -> Context {
    let (before, after): (Vec<_>, Vec<_>) = beside.into_iter().partition(|passage| passage.is_before);
    let (mut before, mut after) = (before.into_iter().rev().peekable(), after.into_iter().peekable());
    let (mut context, mut left) = (Context::default(), tokens);
    let (mut is_before_open, mut is_after_open) = (true, true);
    while is_before_open || is_after_open {
        is_before_open = is_before_open && take(&mut before, &mut left, &mut context.before);
        is_after_open = is_after_open && take(&mut after, &mut left, &mut context.after);
    }
    context.before.reverse();
    context
}

/// Moves the next passage to `shown` when it is inside and fits; false otherwise.
fn take(passages: &mut Peekable<impl Iterator<Item = Beside>>, left: &mut u32, shown: &mut Vec<String>) -> bool {
    let Some(passage) = passages.next_if(|passage| passage.is_inside && passage.tokens <= *left) else { return false };
    *left -= passage.tokens;
    shown.push(passage.text);
    true
}

/// The passages at most `reach` before and after each of `ids` in the same version, in the order of the text.
async fn beside(
    connection: &mut PgConnection,
    ids: &[Uuid],
    reach: i32,
) -> Result<HashMap<Uuid, Vec<Beside>>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT c.id AS of, n.ordinal < c.ordinal AS is_before, n.tokens, n.text,
                CASE WHEN c.heading_path = '{}' THEN n.heading_path = '{}'
                     ELSE n.heading_path[1:cardinality(c.heading_path)] = c.heading_path END AS is_inside
         FROM chunks c
         JOIN chunks n ON n.tenant_id = c.tenant_id AND n.generation_id = c.generation_id AND n.id <> c.id
              AND n.ordinal BETWEEN c.ordinal - $2 AND c.ordinal + $2
         WHERE c.tenant_id = current_tenant() AND c.id = ANY ($1)
         ORDER BY c.id, n.ordinal",
    )
    .bind(ids)
    .bind(reach)
    .fetch_all(connection)
    .await?;
    let mut beside: HashMap<Uuid, Vec<Beside>> = HashMap::new();
    for row in &rows {
        let passage = Beside {
            is_before: row.try_get("is_before")?,
            is_inside: row.try_get("is_inside")?,
            tokens: row.try_get::<i32, _>("tokens")?.unsigned_abs(),
            text: row.try_get("text")?,
        };
        beside.entry(row.try_get("of")?).or_default().push(passage);
    }
    Ok(beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passages `a` to `e` around a hit between `b` and `c`, ten tokens each; those of `inside` are in its section.
    fn shown(inside: &str, tokens: u32) -> (String, String) {
        let passage = |letter: char| Beside {
            is_before: letter < 'c',
            is_inside: inside.contains(letter),
            tokens: 10,
            text: letter.to_string(),
        };
        let context = section("abcde".chars().map(passage).collect(), tokens);
        (context.before.concat(), context.after.concat())
    }

    #[test]
    fn a_section_ends_at_another_heading_and_at_its_tokens() {
        let texts = |before: &str, after: &str| (before.to_owned(), after.to_owned());
        assert_eq!(shown("abcde", 100), texts("ab", "cde"));
        assert_eq!(shown("bcd", 100), texts("b", "cd"));
        assert_eq!(shown("acde", 100), texts("", "cde"), "beyond another section nothing belongs to it");
        assert_eq!(shown("abcde", 30), texts("ab", "c"), "nearest first, before the hit at first");
        assert_eq!(shown("abcde", 29), texts("b", "c"));
        assert_eq!(shown("abcde", 9), texts("", ""));
        assert_eq!(shown("", 100), texts("", ""));
    }
}
