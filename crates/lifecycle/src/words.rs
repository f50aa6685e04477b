//! Words of documents outside their own rows: what models answered, what readers remarked, what conversations hold.

use crate::receipt::Counts;
use docmill_platform::database::DbError;
use sqlx::PgConnection;
use uuid::Uuid;

const MODEL_ANSWERS: &str = "DELETE FROM model_cache WHERE tenant_id = current_tenant() AND document_ids && $1";
/// Also locks against a message that is being added to one of these answers. Gives those that are withdrawn now: one that
/// cites a document removed before was counted then.
const ANSWERS: &str = "WITH resting AS MATERIALIZED (
         SELECT id, document_ids FROM answers WHERE tenant_id = current_tenant() AND document_ids && $1 ORDER BY id FOR UPDATE)
     SELECT id FROM resting WHERE NOT EXISTS (
         SELECT 1 FROM unnest(document_ids) AS cited (id)
         WHERE NOT EXISTS (SELECT 1 FROM documents d WHERE d.tenant_id = current_tenant() AND d.id = cited.id))";
const COMMENTS: &str = "UPDATE answer_feedback f SET comment = NULL FROM answers a
     WHERE f.tenant_id = current_tenant() AND f.comment IS NOT NULL AND a.tenant_id = f.tenant_id AND a.id = f.answer_id
       AND a.document_ids && $1";
const NOTES: &str = "UPDATE conversations c SET notes = ''
     WHERE c.tenant_id = current_tenant() AND c.notes <> '' AND EXISTS (
         SELECT 1 FROM conversation_messages m JOIN answers a ON a.tenant_id = m.tenant_id AND a.id = m.answer_id
         WHERE m.tenant_id = c.tenant_id AND m.conversation_id = c.id AND a.document_ids && $1)";
/// A later question may have been written out with the words of an earlier answer.
const LATER: &str = "UPDATE conversation_messages later SET standalone = '' FROM conversation_messages m JOIN answers a
       ON a.tenant_id = m.tenant_id AND a.id = m.answer_id
     WHERE m.tenant_id = current_tenant() AND a.document_ids && $1 AND later.tenant_id = m.tenant_id
       AND later.conversation_id = m.conversation_id AND later.number > m.number";
const MESSAGES: &str = "UPDATE conversation_messages m SET question = '', standalone = '' FROM answers a
     WHERE m.tenant_id = current_tenant() AND m.question <> '' AND a.tenant_id = m.tenant_id AND a.id = m.answer_id
       AND a.document_ids && $1";

/// Forgets what rests on `documents`, in the transaction that removes them. Answers stay, as ids and hashes.
pub(crate) async fn forget(connection: &mut PgConnection, documents: &[Uuid]) -> Result<Counts, DbError> {
    let mut rows = [0; 6];
    let statements = [MODEL_ANSWERS, ANSWERS, COMMENTS, NOTES, LATER, MESSAGES];
    for (statement, rows) in statements.into_iter().zip(&mut rows) {
        *rows = sqlx::query(statement).bind(documents).execute(&mut *connection).await?.rows_affected() as i64;
    }
    let [model_answers, answers, comments, _, _, messages] = rows;
    Ok(Counts { model_answers, answers, comments, messages, ..Counts::default() })
}
