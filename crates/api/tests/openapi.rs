//! The OpenAPI document is committed: a change of the API is a change of this snapshot.

#[test]
fn the_openapi_document_is_the_committed_one() {
    insta::assert_json_snapshot!("openapi", docmill_api::openapi());
}
