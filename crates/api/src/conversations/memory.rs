//! What a conversation remembers: the last questions with their answers word for word, and notes of what came before,
//! both within a budget of tokens.

use super::{MAX_MESSAGES, gone};
use crate::auth::Principal;
use crate::state::ApiState;
use docmill_model::{AnswerId, Code, ConversationId, Failure, Sha256Hex};
use docmill_retrieval::answers::{Ask, clean};
use serde_json::json;
use sqlx::PgConnection;

/// Tokens of the last questions and answers, and of the notes; reckoned as the gateway does, rather too many: three bytes
/// are one, so that scripts of many bytes a character keep to the budget as well.
const RECENT_TOKENS: usize = 1_500;
const NOTES_TOKENS: usize = 300;
const BYTES_PER_TOKEN: usize = 3;
/// Most turns read back.
const MAX_TURNS: i64 = 40;

/// A question with its answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Turn {
    pub question: String,
    pub answer: String,
}

/// What a follow-up question may refer to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Of what came before the turns.
    pub notes: String,
    /// Oldest first, within the budget.
    pub turns: Vec<Turn>,
    /// Messages of the conversation so far.
    pub messages: i32,
}

impl Memory {
    /// The turns of somebody else's record, within the budget.
    pub(crate) fn of_turns(turns: Vec<Turn>) -> Self {
        let messages = turns.len() as i32;
        let from = turns.len() - fitting(turns.iter().rev());
        Self { notes: String::new(), turns: turns[from..].to_vec(), messages }
    }

    /// As a prompt shows it.
    pub(super) fn text(&self) -> String {
        let notes = (!self.notes.is_empty()).then(|| format!("Earlier: {}", self.notes));
        let turns = self.turns.iter().map(|turn| format!("Question: {}\nAnswer: {}", turn.question, turn.answer));
        notes.into_iter().chain(turns).collect::<Vec<_>>().join("\n")
    }
}

/// How many of `turns` fit the budget.
fn fitting<'a>(turns: impl Iterator<Item = &'a Turn>) -> usize {
    let mut left = RECENT_TOKENS * BYTES_PER_TOKEN;
    let fits = |turn: &&Turn| {
        let size = turn.question.len() + turn.answer.len();
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    };
    turns.take_while(fits).count()
}

type Row = (i32, String, uuid::Uuid);

/// The memory of a conversation of `principal`.
pub(super) async fn load(state: &ApiState, principal: &Principal, id: ConversationId) -> Result<Memory, Failure> {
    let (notes, notes_until, messages, rows) = read(state, principal, id).await?;
    let turns = turns(state, principal, rows.into_iter().filter(|row| row.0 > notes_until)).await?;
    Ok(Memory { messages, notes, ..Memory::of_turns(turns) })
}

async fn read(
    state: &ApiState,
    principal: &Principal,
    id: ConversationId,
) -> Result<(String, i32, i32, Vec<Row>), Failure> {
    let owner = principal.principal_id.0;
    let read = state.database.read(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let found: Option<(String, i32, i32)> = sqlx::query_as(
                "SELECT notes, notes_until, messages FROM conversations
                 WHERE tenant_id = current_tenant() AND id = $1 AND principal_id = $2 AND expires_at > now()",
            )
            .bind(id.0)
            .bind(owner)
            .fetch_optional(&mut *connection)
            .await?;
            let (notes, until, messages) = found.ok_or_else(gone)?;
            let mut rows: Vec<Row> = sqlx::query_as(
                "SELECT number, standalone, answer_id FROM conversation_messages
                 WHERE tenant_id = current_tenant() AND conversation_id = $1 AND standalone <> ''
                 ORDER BY number DESC LIMIT $2",
            )
            .bind(id.0)
            .bind(MAX_TURNS)
            .fetch_all(connection)
            .await?;
            rows.reverse();
            Ok((notes, until, messages, rows))
        })
    });
    Ok(read.await?)
}

/// Questions with what their answers say today, for this caller.
async fn turns(state: &ApiState, principal: &Principal, rows: impl Iterator<Item = Row>) -> Result<Vec<Turn>, Failure> {
    let mut turns = Vec::new();
    for (_, question, answer) in rows {
        let answer = state.answers.get(&principal.caller(), AnswerId(answer)).await?;
        let quotes = answer.sentences.iter().flat_map(|sentence| &sentence.citations);
        let quotes: Vec<&str> = quotes.filter_map(|citation| citation.quote.as_deref()).collect();
        turns.push(Turn { question: clean(&question), answer: clean(&quotes.join(" ")) });
    }
    Ok(turns)
}

/// Adds a message and gives its number; the conversation lives on from now.
pub(super) async fn keep(
    state: &ApiState,
    principal: &Principal,
    id: ConversationId,
    question: &str,
    standalone: &str,
    answer: AnswerId,
) -> Result<i32, Failure> {
    let (question, standalone, owner) = (question.to_owned(), standalone.to_owned(), principal.principal_id.0);
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            // Held so that a deletion of a cited document, which blanks the messages of answers, does not miss this one.
            sqlx::query("SELECT id FROM answers WHERE tenant_id = current_tenant() AND id = $1 FOR SHARE")
                .bind(answer.0)
                .execute(&mut *connection)
                .await?;
            let number: Option<i32> = sqlx::query_scalar(
                "UPDATE conversations SET messages = messages + 1, expires_at = now() + make_interval(secs => ttl_secs)
                 WHERE tenant_id = current_tenant() AND id = $1 AND principal_id = $2 AND messages < $3 RETURNING messages",
            )
            .bind(id.0)
            .bind(owner)
            .bind(MAX_MESSAGES)
            .fetch_optional(&mut *connection)
            .await?;
            let number = number.ok_or_else(gone)?;
            insert(connection, (id, number), (&question, &standalone), answer).await?;
            Ok(number)
        })
    });
    Ok(write.await?)
}

async fn insert(
    connection: &mut PgConnection,
    (id, number): (ConversationId, i32),
    (question, standalone): (&str, &str),
    answer: AnswerId,
) -> Result<(), sqlx::Error> {
    // One that was deleted meanwhile takes the words with it.
    sqlx::query(
        "INSERT INTO conversation_messages (tenant_id, conversation_id, number, question, standalone, answer_id)
         SELECT current_tenant(), $1, $2, CASE WHEN whole THEN $3 ELSE '' END, CASE WHEN whole THEN $4 ELSE '' END, a.id
         FROM answers a CROSS JOIN LATERAL (
             SELECT NOT EXISTS (SELECT unnest(a.document_ids) EXCEPT SELECT id FROM documents WHERE tenant_id = current_tenant()) AS whole) w
         WHERE a.tenant_id = current_tenant() AND a.id = $5",
    )
    .bind(id.0)
    .bind(number)
    .bind(question)
    .bind(standalone)
    .bind(answer.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// Turns what no longer fits into notes. A failure leaves everything as it is; the next message tries again.
pub(super) async fn shorten(state: &ApiState, principal: &Principal, id: ConversationId) {
    if let Err(failure) = try_shorten(state, principal, id).await {
        tracing::warn!(code = %failure.code, "a conversation keeps its length");
    }
}

async fn try_shorten(state: &ApiState, principal: &Principal, id: ConversationId) -> Result<(), Failure> {
    let (notes, until, _, rows) = read(state, principal, id).await?;
    let rows: Vec<Row> = rows.into_iter().filter(|row| row.0 > until).collect();
    let numbers: Vec<i32> = rows.iter().map(|row| row.0).collect();
    let turns = turns(state, principal, rows.into_iter()).await?;
    let overflow = turns.len() - fitting(turns.iter().rev());
    if overflow == 0 {
        return Ok(());
    }
    let old = Memory { notes: notes.clone(), turns: turns[..overflow].to_vec(), messages: 0 };
    let shorter = match noted(state, principal, id, &old).await {
        Ok(shorter) => shorter,
        Err(_) => by_rule(&old),
    };
    let (taken, reached) = (numbers[..overflow].to_vec(), numbers[overflow - 1]);
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            // A deletion of a cited document either waits for this or has blanked a message by the next statement.
            sqlx::query(
                "SELECT id FROM answers WHERE tenant_id = current_tenant() AND id IN (
                     SELECT answer_id FROM conversation_messages
                     WHERE tenant_id = current_tenant() AND conversation_id = $1 AND number = ANY ($2))
                 ORDER BY id FOR SHARE",
            )
            .bind(id.0)
            .bind(&taken)
            .execute(&mut *connection)
            .await?;
            sqlx::query(
                "UPDATE conversations SET notes = $2, notes_until = $3
                 WHERE tenant_id = current_tenant() AND id = $1 AND notes = $4 AND notes_until = $5
                   AND NOT EXISTS (SELECT 1 FROM conversation_messages
                                   WHERE tenant_id = current_tenant() AND conversation_id = $1 AND number = ANY ($6) AND standalone = '')",
            )
            .bind(id.0)
            .bind(shorter)
            .bind(reached)
            .bind(notes)
            .bind(until)
            .bind(&taken)
            .execute(connection)
            .await?;
            Ok(())
        })
    });
    Ok(write.await?)
}

/// Notes by a model.
async fn noted(state: &ApiState, principal: &Principal, id: ConversationId, old: &Memory) -> Result<String, Failure> {
    let none = || Failure::new(Code::ProviderRefused, "no model is configured for this");
    let generator = state.answers.generator().filter(|generator| generator.serves(super::rewrite::USE));
    let text = old.text();
    let marker = Sha256Hex::of(text.as_bytes()).as_str()[..32].to_owned();
    let words = (NOTES_TOKENS / 2).to_string();
    let schema = json!({"type": "object", "required": ["notes"], "properties": {"notes": {"type": "string"}}});
    let ask = Ask {
        tenant: principal.tenant_id,
        used_for: super::rewrite::USE,
        prompt: "memory",
        input: &text,
        values: &[("marker", &marker), ("conversation", &text), ("max_words", &words)],
        // Earlier answers are among the values, and with them words of documents.
        documents: None,
        conversation: Some(id),
        schema: Some(&schema),
        max_output_tokens: NOTES_TOKENS as u32 * 2,
        deltas: None,
    };
    let generator = generator.ok_or_else(none)?;
    let instructions = generator.instructions(&ask).await?;
    let told = generator.generate(ask).await?;
    let invalid = || Failure::new(Code::ProviderOutputInvalid, "the model's notes do not come from the conversation");
    let notes = super::rewrite::field(&told.text, "notes");
    let notes =
        notes.and_then(|notes| super::rewrite::borne_out(&notes, &[&text], &instructions)).ok_or_else(invalid)?;
    Ok(notes[..notes.floor_char_boundary(NOTES_TOKENS * BYTES_PER_TOKEN)].to_owned())
}

/// Notes without a model: the questions, newest kept.
fn by_rule(old: &Memory) -> String {
    let questions = old.turns.iter().map(|turn| turn.question.as_str());
    let all: Vec<&str> = std::iter::once(old.notes.as_str()).chain(questions).filter(|text| !text.is_empty()).collect();
    let all = all.join(" ");
    let excess = all.len().saturating_sub(NOTES_TOKENS * BYTES_PER_TOKEN);
    all[all.ceil_char_boundary(excess)..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_to_its_budget_newest_first() {
        // 2,000 bytes, not 666 characters' worth of tokens.
        let turn = |n: usize| Turn { question: format!("question {n}"), answer: "租".repeat(667) };
        let memory = Memory::of_turns((0..9).map(turn).collect());
        assert_eq!(
            memory.turns.iter().map(|turn| turn.question.as_str()).collect::<Vec<_>>(),
            ["question 7", "question 8"]
        );
        let notes = by_rule(&Memory { notes: "a ".repeat(2_000), turns: vec![turn(1)], messages: 1 });
        assert!(notes.len() <= NOTES_TOKENS * BYTES_PER_TOKEN && notes.ends_with("question 1"));
    }
}
