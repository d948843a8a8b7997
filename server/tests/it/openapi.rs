/// The document is the contract: a change of it is a change of the API, seen in review.
#[test]
fn the_document_is_as_it_was() {
    insta::assert_json_snapshot!("openapi", dispatch_server::routes::openapi());
}
