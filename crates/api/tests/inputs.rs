//! Bad input gets its stated answer: never a 500, never a panic's text, never somebody else's identifier.
#![allow(clippy::unwrap_used)]

mod support;

use axum::body::Body;
use axum::http::{Method, Request, header};
use docmill_api::keys;
use docmill_platform::layout::upload_key;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::Connection;
use support::{Api, declaration, put, put_status, request};

/// A declaration with one field changed.
fn with(field: &str, value: Value) -> Value {
    let mut body = declaration("a.txt", b"some bytes");
    body[field] = value;
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn declarations() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let nested = (0..200).fold(json!(1), |inner, _| json!([inner]));
    for (body, status, code) in [
        (with("size", json!(0)), 422, "SIZE_INVALID"),
        (with("size", json!(-1)), 422, "SIZE_INVALID"),
        (with("size", json!(1_073_741_825_i64)), 413, "SIZE_LIMIT"),
        (with("size", json!(9_223_372_036_854_775_808_u64)), 413, "SIZE_LIMIT"),
        (with("size", json!(1e30)), 413, "SIZE_LIMIT"),
        (with("size", json!(1.5)), 422, "FIELD_INVALID"),
        (with("size", json!("12")), 422, "FIELD_INVALID"),
        (with("name", json!("")), 422, "NAME_INVALID"),
        (with("name", json!("a\0b")), 422, "NAME_INVALID"),
        (with("name", json!("n".repeat(256))), 422, "NAME_INVALID"),
        (with("name", json!(null)), 422, "FIELD_INVALID"),
        (with("sha256", json!("abc")), 422, "FIELD_INVALID"),
        (with("sha256", json!("g".repeat(64))), 422, "FIELD_INVALID"),
        (with("content_type", json!("pdf")), 422, "FIELD_INVALID"),
        (with("content_type", json!("text/plain\r\nx: y")), 422, "FIELD_INVALID"),
        (with("pipeline", json!("no such")), 422, "PIPELINE_UNKNOWN"),
        (with("collection", json!("c\0")), 422, "FIELD_INVALID"),
        (with("collection", json!("")), 422, "FIELD_INVALID"),
        (with("external_id", json!("e".repeat(501))), 422, "FIELD_INVALID"),
        (with("metadata", json!([1])), 422, "FIELD_INVALID"),
        (with("metadata", json!({"a": "\0"})), 422, "FIELD_INVALID"),
        (with("metadata", json!({"a": "m".repeat(17_000)})), 422, "FIELD_INVALID"),
        (with("labels", json!(vec!["l"; 33])), 422, "FIELD_INVALID"),
        (with("unknown", json!(1)), 422, "FIELD_INVALID"),
        (with("metadata", json!({"deep": nested})), 400, "BODY_INVALID"),
        (json!([]), 422, "FIELD_INVALID"),
        (Value::Null, 422, "FIELD_INVALID"),
    ] {
        let reply = api.post(&tenant.key, "/v1/documents", &body).await;
        assert_eq!(reply.error(), (status, code.to_owned()), "{body}: {}", reply.text);
    }
    let limited = api.post(&tenant.key, "/v1/documents", &with("size", json!(1_073_741_825_i64))).await.json();
    assert_eq!((&limited["limit"], &limited["measured"]), (&json!(1_073_741_824), &json!(1_073_741_825)));
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_are_labels_and_nothing_more() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    for name in ["../../etc/passwd", "CON", "a\u{202e}fdp.exe", &"n".repeat(255), "<script>", "%00", " ", "name\nline"]
    {
        let created = api.post(&tenant.key, "/v1/documents", &with("name", json!(name))).await.ok();
        let url = created["upload"]["url"].as_str().unwrap();
        assert!(!url.contains("passwd") && !url.contains("CON"), "no part of a key comes from the name");
        let shown = api.get(&tenant.key, &format!("/v1/documents/{}", created["id"].as_str().unwrap())).await.ok();
        assert_eq!(shown["name"], json!(name), "the label is kept as it was");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_none() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let bearer = format!("Bearer {}", tenant.key);
    let post = |content_type: Option<&str>, body: Vec<u8>| {
        let builder = Request::post("/v1/documents").header(header::AUTHORIZATION, &bearer);
        let builder = content_type.into_iter().fold(builder, |b, t| b.header(header::CONTENT_TYPE, t));
        builder.body(Body::from(body)).unwrap()
    };
    let json_type = Some("application/json");
    for (request, status, code) in [
        (post(json_type, b"{".to_vec()), 400, "BODY_INVALID"),
        (post(json_type, Vec::new()), 400, "BODY_INVALID"),
        (post(json_type, vec![0xff, 0xfe, 0x00]), 400, "BODY_INVALID"),
        (post(None, b"{}".to_vec()), 400, "BODY_INVALID"),
        (post(Some("text/xml"), b"<a/>".to_vec()), 400, "BODY_INVALID"),
        (post(json_type, vec![b' '; (1 << 20) + 1]), 413, "BODY_LIMIT"),
    ] {
        assert_eq!(api.send(request).await.error(), (status, code.to_owned()));
    }
    let at_limit = post(json_type, [declaration("a", b"b").to_string().into_bytes(), vec![b' '; 1000]].concat());
    assert_eq!(api.send(at_limit).await.status, 201, "trailing blanks are fine");
    let mut declared = post(json_type, b"{}".to_vec());
    declared.headers_mut().insert(header::CONTENT_LENGTH, (1 << 30).into());
    let refused = api.send(declared).await;
    assert_eq!((refused.code().as_str(), &refused.json()["measured"]), ("BODY_LIMIT", &json!(1 << 30)));
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_out_of_order() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let created = api.post(&tenant.key, "/v1/documents", &declaration("a.txt", b"some bytes")).await.ok();
    let complete = format!("/v1/documents/{}/complete", created["id"].as_str().unwrap());
    assert_eq!(api.post(&tenant.key, &complete, &Value::Null).await.error(), (409, "UPLOAD_MISSING".to_owned()));
    assert!(put_status(&created["upload"], b"same bytes").await >= 400, "other bytes are refused by the store");
    assert!(put_status(&created["upload"], b"some bytes, more").await >= 400, "another length is refused by the store");
    put(&created["upload"], b"some bytes").await;
    assert!(put_status(&created["upload"], b"some bytes").await >= 400, "a second PUT is refused");
    let (first, second) =
        tokio::join!(api.post(&tenant.key, &complete, &Value::Null), api.post(&tenant.key, &complete, &Value::Null));
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200), "{} {}", first.text, second.text);
    let third = api.post(&tenant.key, &complete, &Value::Null).await.ok();
    assert_eq!((&third["id"], &third["state"]), (&created["id"], &json!("processing")));
    let runs: i64 =
        sqlx::query_scalar("SELECT count(*) FROM runs").fetch_one(api.world.database.engine()).await.unwrap();
    assert_eq!(runs, 1, "completing again starts nothing");
    let again = api.post(&tenant.key, "/v1/documents", &declaration("b.txt", b"some bytes")).await;
    assert_eq!(again.status, 200);
    assert_eq!((&again.json()["deduplicated"], &again.json()["id"]), (&json!(true), &created["id"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_not_what_was_declared_is_named() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let created = api.post(&tenant.key, "/v1/documents", &declaration("a.txt", b"some bytes")).await.ok();
    let (id, version) = (created["id"].as_str().unwrap(), created["version_id"].as_str().unwrap());
    let key = upload_key(tenant.id, version.parse().unwrap());
    for (bytes, field) in [(&b"longer than declared"[..], "size"), (b"same bytes", "sha256")] {
        api.world.blobs.put(&key, bytes.into(), &docmill_model::Sha256Hex::of(bytes)).await.unwrap();
        let refused = api.post(&tenant.key, &format!("/v1/documents/{id}/complete"), &Value::Null).await;
        assert_eq!(refused.error(), (409, "UPLOAD_MISMATCH".to_owned()));
        assert!(refused.json()["message"].as_str().unwrap().contains(field), "{}", refused.text);
    }
    put(&created["upload"], b"some bytes").await;
    api.post(&tenant.key, &format!("/v1/documents/{id}/complete"), &Value::Null).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_changed_after_completion_changes_nothing() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let created = api.post(&tenant.key, "/v1/documents", &declaration("a.txt", b"some bytes")).await.ok();
    put(&created["upload"], b"some bytes").await;
    let (id, version) = (created["id"].as_str().unwrap(), created["version_id"].as_str().unwrap());
    api.post(&tenant.key, &format!("/v1/documents/{id}/complete"), &Value::Null).await.ok();
    let evil = docmill_model::Sha256Hex::of(b"evil bytes");
    let key = upload_key(tenant.id, version.parse().unwrap());
    api.world.blobs.put(&key, b"evil bytes"[..].into(), &evil).await.unwrap();
    api.post(&tenant.key, &format!("/v1/documents/{id}/complete"), &Value::Null).await.ok();
    let sha256 = docmill_model::Sha256Hex::of(b"some bytes");
    let accepted = api.world.blobs.get_verified(&format!("{}/accepted/{sha256}", tenant.id), &sha256).await.unwrap();
    assert_eq!(&accepted[..], b"some bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_and_searches() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let search = |body: Value| (Method::POST, "/v1/search", body);
    let ask = |body: Value| (Method::POST, "/v1/answers", body);
    for ((method, path, body), status, code) in [
        (search(json!({"query": ""})), 422, "QUERY_EMPTY"),
        (search(json!({"query": " \t?!"})), 422, "QUERY_EMPTY"),
        (search(json!({"query": "*:*"})), 422, "QUERY_EMPTY"),
        (search(json!({"query": "q".repeat(4001)})), 413, "QUERY_LIMIT"),
        (search(json!({"query": "q".repeat(1 << 20)})), 413, "BODY_LIMIT"),
        (search(json!({"query": "a", "k": 0})), 422, "FIELD_INVALID"),
        (search(json!({"query": "a", "k": -1})), 422, "FIELD_INVALID"),
        (search(json!({"query": "a", "k": 1_000_000_000})), 422, "FIELD_INVALID"),
        (search(json!({"query": "a", "filters": {"tenant_id": "x"}})), 422, "FIELD_INVALID"),
        (search(json!({"query": "a", "filters": {"collection": "\0"}})), 422, "FIELD_INVALID"),
        (search(json!({"query": "a", "filters": {"metadata": {"\0": 1}}})), 422, "FIELD_INVALID"),
        (search(json!({"query": "a", "filters": {"metadata": {"x": {}}}})), 422, "FIELD_INVALID"),
        (search(json!({"query": "a", "mode": "magic"})), 422, "FIELD_INVALID"),
        (ask(json!({"question": "??"})), 422, "QUERY_EMPTY"),
        (ask(json!({"question": "a", "k": 51})), 422, "FIELD_INVALID"),
        (ask(json!({"question": "a", "max_sentences": 0})), 422, "FIELD_INVALID"),
        (ask(json!({"query": "a"})), 422, "FIELD_INVALID"),
    ] {
        let reply = api.send(request(method, path, &tenant.key, Some(&body))).await;
        let shown: String = body.to_string().chars().take(80).collect();
        assert_eq!(reply.error(), (status, code.to_owned()), "{shown}: {}", reply.text);
    }
    // What looks like syntax is text, and nothing a user writes reaches the tenant filter or the database.
    for query in [
        "a AND (",
        "tenant:other",
        "text:/(a+)+$/",
        "\"unbalanced",
        "a NOT",
        "the of and",
        "'; DROP TABLE documents; --",
        "a\0b",
    ] {
        for mode in ["hybrid", "lexical", "dense"] {
            let found = api.post(&tenant.key, "/v1/search", &json!({"query": query, "mode": mode})).await.ok();
            assert_eq!(found["hits"], json!([]), "{query}");
        }
        let answer = api.post(&tenant.key, "/v1/answers", &json!({"question": query})).await.ok();
        assert_eq!(answer["found"], json!(false), "{query}");
    }
    let sql = json!({"query": "a", "filters": {"collection": "x' OR '1'='1"}});
    assert_eq!(api.post(&tenant.key, "/v1/search", &sql).await.ok()["hits"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_cursors() {
    let api = Api::start().await;
    let (tenant, other) = (api.tenant().await, api.tenant().await);
    for bytes in [&b"one"[..], b"two", b"three"] {
        api.post(&tenant.key, "/v1/documents", &declaration("a.txt", bytes)).await.ok();
        api.post(&other.key, "/v1/documents", &declaration("a.txt", bytes)).await.ok();
    }
    let page = api.get(&tenant.key, "/v1/documents?limit=2").await.ok();
    let cursor = page["next_cursor"].as_str().unwrap().to_owned();
    let rest = api.get(&tenant.key, &format!("/v1/documents?limit=2&cursor={cursor}")).await.ok();
    assert_eq!((rest["documents"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null));
    let foreign = api.get(&other.key, "/v1/documents?limit=2").await.ok()["next_cursor"].as_str().unwrap().to_owned();
    let mut edited = cursor.clone().into_bytes();
    edited[30] = if edited[30] == b'A' { b'B' } else { b'A' };
    let edited = String::from_utf8(edited).unwrap();
    for (path, code) in [
        (format!("/v1/documents?cursor={foreign}"), "CURSOR_INVALID"),
        (format!("/v1/documents?cursor={edited}"), "CURSOR_INVALID"),
        (format!("/v1/operate/jobs?cursor={cursor}"), "CURSOR_INVALID"),
        ("/v1/documents?cursor=x".to_owned(), "CURSOR_INVALID"),
        ("/v1/documents?limit=0".to_owned(), "FIELD_INVALID"),
        ("/v1/documents?limit=-1".to_owned(), "FIELD_INVALID"),
        ("/v1/documents?limit=1000000000".to_owned(), "FIELD_INVALID"),
        ("/v1/documents?limit=ten".to_owned(), "FIELD_INVALID"),
        ("/v1/documents?state=unknown".to_owned(), "FIELD_INVALID"),
        ("/v1/documents?nosuch=1".to_owned(), "FIELD_INVALID"),
        ("/v1/documents?name=%00".to_owned(), "FIELD_INVALID"),
        ("/v1/documents?created_after=yesterday".to_owned(), "FIELD_INVALID"),
        ("/v1/operate/dead?limit=1001".to_owned(), "FIELD_INVALID"),
        ("/v1/usage?from=2030-01-01T00:00:00Z".to_owned(), "FIELD_INVALID"),
    ] {
        assert_eq!(api.get(&tenant.key, &path).await.error(), (422, code.to_owned()), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_every_wrong_place() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let good = tenant.key.clone();
    let mistyped = format!("{}{}", &good[..good.len() - 1], if good.ends_with('0') { '1' } else { '0' });
    let unknown = keys::generate().expose_secret().to_owned();
    let revoked = api.post(&good, "/v1/keys", &json!({"name": "r", "scopes": ["admin"]})).await.ok();
    let revoked_key = revoked["key"].as_str().unwrap().to_owned();
    api.get(&revoked_key, "/v1/keys").await.ok();
    let path = format!("/v1/keys/{}", revoked["id"].as_str().unwrap());
    for _ in 0..2 {
        assert_eq!(api.delete(&good, &path).await.status, 204, "revoking again changes nothing");
    }
    let plain = |path: &str, header: Option<String>| {
        let builder = Request::get(path);
        let builder = header.into_iter().fold(builder, |b, h| b.header(header::AUTHORIZATION, h));
        builder.body(Body::empty()).unwrap()
    };
    for (request, status, code) in [
        (plain("/v1/keys", None), 401, "KEY_MISSING"),
        (plain("/v1/keys", Some("Basic abc".to_owned())), 401, "KEY_MALFORMED"),
        (plain("/v1/keys", Some("Bearer".to_owned())), 401, "KEY_MALFORMED"),
        (plain("/v1/keys", Some(format!("Bearer {mistyped}"))), 401, "KEY_MALFORMED"),
        (plain("/v1/keys", Some(format!("Bearer {}", "x".repeat(5000)))), 401, "KEY_MALFORMED"),
        (plain("/v1/keys", Some(format!("Bearer {unknown}"))), 401, "KEY_REVOKED"),
        (plain("/v1/keys", Some(format!("Bearer {revoked_key}"))), 401, "KEY_REVOKED"),
        (plain(&format!("/v1/keys?api_key={good}"), None), 400, "KEY_IN_URL"),
        (plain("/v1/documents?token=x", Some(format!("Bearer {good}"))), 400, "KEY_IN_URL"),
        (plain(&format!("/v1/documents/{good}"), Some(format!("Bearer {good}"))), 400, "KEY_IN_URL"),
    ] {
        let reply = api.send(request).await;
        assert_eq!(reply.error(), (status, code.to_owned()));
        assert!(!reply.text.contains("dmk_"), "no key in an answer");
    }
    for (body, code) in [
        (json!({"name": "", "scopes": ["query"]}), "FIELD_INVALID"),
        (json!({"name": "a\0", "scopes": ["query"]}), "FIELD_INVALID"),
        (json!({"name": "a", "scopes": []}), "FIELD_INVALID"),
        (json!({"name": "a", "scopes": ["root"]}), "FIELD_INVALID"),
        (json!({"name": "a", "scopes": ["query"], "expires_at": "2001-01-01T00:00:00Z"}), "FIELD_INVALID"),
        (json!({"name": "a", "scopes": ["query"], "labels": [""]}), "FIELD_INVALID"),
    ] {
        assert_eq!(api.post(&good, "/v1/keys", &body).await.error(), (422, code.to_owned()), "{body}");
    }
    let listed = api.get(&good, "/v1/keys").await.text;
    assert!(!listed.contains(&good) && !listed.contains(&revoked_key), "a key is shown once");
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM api_keys k WHERE k::text LIKE '%' || $1 || '%'")
        .bind(&good[10..30])
        .fetch_one(api.world.database.engine())
        .await
        .unwrap();
    assert_eq!(stored, 0, "only a keyed hash is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_addresses() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    for url in [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[::ffff:7f00:1]/",
        "https://0x7f.1/",
        "https://2130706433/",
        "https://a@127.0.0.1/",
        "https://u:p@example.com/",
        "https://example.com:22/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "https://10.0.0.8/",
        "https://intern/",
        "",
        "x",
        "https://192.168.1.1/",
        "https://[fd00::1]/",
        "https://0.0.0.0/",
    ] {
        let reply = api.post(&tenant.key, "/v1/webhooks", &json!({"url": url})).await;
        assert_eq!(reply.error(), (422, "WEBHOOK_URL_FORBIDDEN".to_owned()), "{url}");
    }
    let created = api.post(&tenant.key, "/v1/webhooks", &json!({"url": "https://example.com/hook"})).await.ok();
    let (id, secret) = (created["id"].as_str().unwrap(), created["secret"].as_str().unwrap());
    assert!(secret.starts_with("whsec_"));
    assert!(!api.get(&tenant.key, "/v1/webhooks").await.text.contains("whsec_"), "a secret is shown once");
    for expected in [2, 3, 3] {
        let rotated = api.post(&tenant.key, &format!("/v1/webhooks/{id}/rotate"), &Value::Null).await.ok();
        assert_ne!(rotated["secret"].as_str().unwrap(), secret);
        assert_eq!(api.get(&tenant.key, "/v1/webhooks").await.ok()["webhooks"][0]["secrets"], expected);
    }
    let unknown_event = json!({"url": "https://example.com/", "events": ["everything"]});
    assert_eq!(api.post(&tenant.key, "/v1/webhooks", &unknown_event).await.error(), (422, "FIELD_INVALID".to_owned()));
    assert_eq!(api.delete(&tenant.key, &format!("/v1/webhooks/{id}")).await.status, 204);
    assert_eq!(api.delete(&tenant.key, &format!("/v1/webhooks/{id}")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_keys() {
    let api = Api::start().await;
    let (tenant, other) = (api.tenant().await, api.tenant().await);
    let send = |key: String, idempotency: String, body: Value| {
        let mut request = request(Method::POST, "/v1/documents", &key, Some(&body));
        request.headers_mut().insert("idempotency-key", idempotency.parse().unwrap());
        api.send(request)
    };
    let body = declaration("a.txt", b"some bytes");
    let first = send(tenant.key.clone(), "k1".to_owned(), body.clone()).await;
    let again = send(tenant.key.clone(), "k1".to_owned(), body.clone()).await;
    assert_eq!((first.status, &first.text), (again.status, &again.text), "the first answer, byte for byte");
    let reused = send(tenant.key.clone(), "k1".to_owned(), declaration("b.txt", b"other bytes")).await;
    assert_eq!(reused.error(), (422, "KEY_REUSED".to_owned()));
    assert_eq!(
        send(tenant.key.clone(), "k".repeat(10_000), body.clone()).await.error(),
        (400, "BODY_INVALID".to_owned())
    );
    assert_eq!(send(tenant.key.clone(), String::new(), body.clone()).await.error(), (400, "BODY_INVALID".to_owned()));
    let foreign = send(other.key.clone(), "k1".to_owned(), body).await;
    assert_eq!(foreign.status, 201, "a key belongs to its principal");
    assert_ne!(foreign.json()["id"], first.json()["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_first_try_still_runs_is_told_to_come_back() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let mut first = sqlx::PgConnection::connect(api.world.owner_url.expose_secret()).await.unwrap();
    sqlx::query("BEGIN").execute(&mut first).await.unwrap();
    sqlx::query(
        "INSERT INTO idempotency_keys (tenant_id, principal_id, key, request_sha256)
         SELECT tenant_id, id, 'k1', repeat('0', 64) FROM principals WHERE tenant_id = $1",
    )
    .bind(tenant.id.0)
    .execute(&mut first)
    .await
    .unwrap();
    let mut request = request(Method::POST, "/v1/documents", &tenant.key, Some(&declaration("a.txt", b"some bytes")));
    request.headers_mut().insert("idempotency-key", "k1".parse().unwrap());
    let refused = api.send(request).await;
    assert_eq!(refused.error(), (409, "IN_PROGRESS".to_owned()));
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_ran_out_is_gone() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let created = api.post(&tenant.key, "/v1/documents", &declaration("a.txt", b"some bytes")).await.ok();
    let expired = api.world.database.write(tenant.id, |connection| {
        Box::pin(async move {
            Ok(sqlx::query("UPDATE document_versions SET upload_state = 'expired'").execute(connection).await?)
        })
    });
    expired.await.unwrap();
    let path = format!("/v1/documents/{}/complete", created["id"].as_str().unwrap());
    assert_eq!(api.post(&tenant.key, &path, &Value::Null).await.error(), (410, "UPLOAD_EXPIRED".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_cannot_be_stored_is_named() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let mut body = declaration("a.txt", b"some bytes");
    body["metadata"] = json!({"note": "a\u{0}b"});
    assert_eq!(api.post(&tenant.key, "/v1/documents", &body).await.error(), (422, "FIELD_INVALID".to_owned()));
    let refused = api.send(request(Method::DELETE, "/v1/collections/%00", &tenant.key, None)).await;
    assert_eq!(refused.error(), (422, "FIELD_INVALID".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_methods_that_do_not_exist() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    for (method, path, status, code) in [
        (Method::GET, "/", 404, "NOT_FOUND"),
        (Method::GET, "/v1/nothing", 404, "NOT_FOUND"),
        (Method::GET, "/v1/documents/", 404, "NOT_FOUND"),
        (Method::GET, "/v1/documents/not-an-id", 404, "NOT_FOUND"),
        (Method::GET, "/v1/documents/..%2f..%2fetc", 404, "NOT_FOUND"),
        (Method::GET, "/v1/documents/%ff", 400, "BODY_INVALID"),
        (Method::PUT, "/v1/documents", 405, "METHOD_NOT_ALLOWED"),
        (Method::DELETE, "/healthz", 405, "METHOD_NOT_ALLOWED"),
        (Method::GET, "/metrics", 404, "NOT_FOUND"),
    ] {
        let reply = api.send(request(method.clone(), path, &tenant.key, None)).await;
        assert_eq!(reply.error(), (status, code.to_owned()), "{method} {path}: {}", reply.text);
    }
}
