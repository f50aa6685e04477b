//! Stable error codes: what an uploader, an assistant or an operator can act on.
//!
//! A [`Code`] never changes its string or meaning. Each has an [`ErrorKind`] that decides policy (retry or
//! not), an HTTP status and one sentence on what to do; `deploy/codes/` has a page for each, which is compiled in.

/// What a failure means for whoever must decide about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The input is at fault; trying again gives the same answer.
    Permanent,
    /// A dependency is at fault; trying again later may succeed.
    Transient,
    /// Our fault or unexplained; tried again a bounded number of times.
    Internal,
}

macro_rules! codes {
    ($($variant:ident $text:literal $kind:ident $status:literal $help:literal;)+) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $(#[doc = $help] $variant,)+ }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// The stable spelling.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)+ }
            }

            /// Which policy applies.
            #[must_use]
            pub fn kind(self) -> ErrorKind {
                match self { $(Code::$variant => ErrorKind::$kind,)+ }
            }

            /// The HTTP status when the code ends a request.
            #[must_use]
            pub fn http_status(self) -> u16 {
                match self { $(Code::$variant => $status,)+ }
            }

            /// One sentence: what to do.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self { $(Code::$variant => $help,)+ }
            }

            /// The page in `deploy/codes/`, in Markdown.
            fn markdown(self) -> &'static str {
                match self { $(Code::$variant => include_str!(concat!("../../../deploy/codes/", $text, ".md")),)+ }
            }

            /// From the stable spelling.
            #[must_use]
            pub fn parse(text: &str) -> Option<Code> {
                match text { $($text => Some(Code::$variant),)+ _ => None }
            }
        }
    };
}

codes! {
    // --- requests
    SizeInvalid "SIZE_INVALID" Permanent 422 "Declare the size of the file in bytes, at least 1.";
    SizeLimit "SIZE_LIMIT" Permanent 413 "Upload a smaller file, or ask an administrator to raise the tenant's limit.";
    NameInvalid "NAME_INVALID" Permanent 422 "Use a file name of 1 to 255 bytes without NUL.";
    FieldInvalid "FIELD_INVALID" Permanent 422 "Correct the named field.";
    BodyInvalid "BODY_INVALID" Permanent 400 "Send a JSON body of the documented shape.";
    BodyLimit "BODY_LIMIT" Permanent 413 "Send a smaller request body; files go to the signed URL.";
    NotFound "NOT_FOUND" Permanent 404 "Check the identifier; it may be deleted or belong to somebody else.";
    MethodNotAllowed "METHOD_NOT_ALLOWED" Permanent 405 "Use a documented method for this path.";
    UploadMissing "UPLOAD_MISSING" Permanent 409 "PUT the bytes to the signed URL first.";
    UploadMismatch "UPLOAD_MISMATCH" Permanent 409 "The stored object differs from the declaration; upload again.";
    UploadExpired "UPLOAD_EXPIRED" Permanent 410 "The upload was not completed in time; create a new one.";
    FileRemoved "FILE_REMOVED" Permanent 410 "Retention removed the uploaded bytes; upload the file again to have it read again.";
    NotReady "NOT_READY" Permanent 409 "The document has no such result yet; wait until its stage is done.";
    CursorInvalid "CURSOR_INVALID" Permanent 422 "Start again without a cursor.";
    QueryEmpty "QUERY_EMPTY" Permanent 422 "Ask a question with at least one word.";
    QueryLimit "QUERY_LIMIT" Permanent 413 "Shorten the question.";
    KeyMissing "KEY_MISSING" Permanent 401 "Send `Authorization: Bearer <api key>`.";
    KeyMalformed "KEY_MALFORMED" Permanent 401 "Check that the whole API key was copied.";
    KeyRevoked "KEY_REVOKED" Permanent 401 "Use another key; this one is revoked, expired or unknown.";
    KeyInUrl "KEY_IN_URL" Permanent 400 "Send the key in the Authorization header, and revoke this one: URLs are logged.";
    ScopeMissing "SCOPE_MISSING" Permanent 403 "Use a key that has the named scope.";
    KeyReused "KEY_REUSED" Permanent 422 "Use a new Idempotency-Key for a different request.";
    InProgress "IN_PROGRESS" Transient 409 "The first request with this Idempotency-Key is still running; retry shortly.";
    RateLimited "RATE_LIMITED" Transient 429 "Wait as long as Retry-After says.";
    Overloaded "OVERLOADED" Transient 503 "Wait as long as Retry-After says.";
    RequestTimeout "REQUEST_TIMEOUT" Transient 504 "The request took longer than its limit; read the state before repeating it.";
    ReplayTooLarge "REPLAY_TOO_LARGE" Permanent 422 "Narrow the filter, or confirm with the measured count.";
    SpaceUnknown "SPACE_UNKNOWN" Permanent 422 "Use the name of an embedding space; `docmill spaces list` shows them.";
    SpaceIncomplete "SPACE_INCOMPLETE" Transient 409 "Wait until the embedding space has a vector for every text.";
    SpaceActive "SPACE_ACTIVE" Permanent 409 "Switch to another embedding space first.";
    EvaluationMissing "EVALUATION_MISSING" Permanent 409 "Evaluate the version first: `docmill eval run FILE --prompt NAME@VERSION`.";
    EvaluationFailed "EVALUATION_FAILED" Permanent 409 "Make a version that passes its evaluation, or roll this one out with a reason.";
    Conflict "CONFLICT" Permanent 409 "The state changed meanwhile; read it again.";
    WebhookUrlForbidden "WEBHOOK_URL_FORBIDDEN" Permanent 422 "Use an https URL on a public address and a usual port.";
    PipelineInvalid "PIPELINE_INVALID" Permanent 422 "Correct the pipeline file at the named place.";
    PipelineUnknown "PIPELINE_UNKNOWN" Permanent 422 "Use the name of a configured pipeline.";
    // --- documents
    EmptyFile "EMPTY_FILE" Permanent 422 "The file has no bytes.";
    EmptyText "EMPTY_TEXT" Permanent 422 "The file holds no text.";
    TypeMismatch "TYPE_MISMATCH" Permanent 422 "Declare the type the bytes have.";
    TypeAmbiguous "TYPE_AMBIGUOUS" Permanent 422 "The bytes are valid in two formats at once; export the file again.";
    TypeUnsupported "TYPE_UNSUPPORTED" Permanent 415 "Convert the file to a supported format.";
    PdfMalformed "PDF_MALFORMED" Permanent 422 "The PDF is damaged; export it again.";
    PdfEncrypted "PDF_ENCRYPTED" Permanent 422 "Remove the password and upload again.";
    PdfNestingLimit "PDF_NESTING_LIMIT" Permanent 422 "The PDF nests objects deeper than the limit.";
    DocxMalformed "DOCX_MALFORMED" Permanent 422 "The DOCX is damaged; save it again.";
    ArchiveEncrypted "ARCHIVE_ENCRYPTED" Permanent 422 "Remove the password and upload again.";
    ArchiveUnsafePath "ARCHIVE_UNSAFE_PATH" Permanent 422 "The archive holds an entry with an unsafe path.";
    ImageMalformed "IMAGE_MALFORMED" Permanent 422 "The image is damaged; save it again.";
    CsvMalformed "CSV_MALFORMED" Permanent 422 "The table cannot be read at the named row.";
    EncodingUnknown "ENCODING_UNKNOWN" Permanent 422 "Save the text as UTF-8.";
    XmlMalformed "XML_MALFORMED" Permanent 422 "The XML inside the file is damaged.";
    XmlDtdForbidden "XML_DTD_FORBIDDEN" Permanent 422 "Remove the document type declaration.";
    XmlLimit "XML_LIMIT" Permanent 422 "The XML exceeds the named limit.";
    ExpansionLimit "EXPANSION_LIMIT" Permanent 422 "The file unpacks to more than the limit.";
    EntryLimit "ENTRY_LIMIT" Permanent 422 "The archive has more entries than the limit.";
    DepthLimit "DEPTH_LIMIT" Permanent 422 "The file nests deeper than the limit.";
    LineLimit "LINE_LIMIT" Permanent 422 "A line is longer than the limit.";
    PageLimit "PAGE_LIMIT" Permanent 422 "Split the document.";
    PixelLimit "PIXEL_LIMIT" Permanent 422 "Scale the image down.";
    OcrEmpty "OCR_EMPTY" Permanent 422 "No text was recognised on the image.";
    OcrUnavailable "OCR_UNAVAILABLE" Permanent 422 "Install tesseract-ocr (or run `docmill setup`) and replay the ingest stage.";
    OcrFailed "OCR_FAILED" Internal 422 "Text recognition failed on this page.";
    ParserCrashed "PARSER_CRASHED" Permanent 422 "The file makes the parser fail; export it again.";
    ParserTimeout "PARSER_TIMEOUT" Permanent 422 "The file takes longer than the limit; split it.";
    ParserCpu "PARSER_CPU" Permanent 422 "The file takes more CPU time than the limit; split it.";
    ParserMemory "PARSER_MEMORY" Permanent 422 "The file needs more memory than the limit; split it.";
    OutputLimit "OUTPUT_LIMIT" Permanent 422 "The result is larger than the limit; split the input.";
    SandboxUnavailable "SANDBOX_UNAVAILABLE" Internal 500 "The parser's sandbox cannot be built; see `docmill doctor`.";
    HashMismatch "HASH_MISMATCH" Transient 422 "The bytes differ from the declared sha256; upload again.";
    EmbeddingInvalid "EMBEDDING_INVALID" Internal 500 "The embedding model returned an unusable vector.";
    SchemaInvalid "SCHEMA_INVALID" Permanent 422 "Correct the extraction schema of the pipeline.";
    // --- engine
    EventInvalid "EVENT_INVALID" Permanent 422 "An event could not be read; it is parked for the operator.";
    StageTimeout "STAGE_TIMEOUT" Transient 504 "The stage took longer than its limit.";
    WorkerLost "WORKER_LOST" Transient 500 "The worker died while running the job.";
    Cancelled "CANCELLED" Permanent 409 "The run was cancelled.";
    DeliveryBlocked "DELIVERY_BLOCKED" Permanent 422 "The webhook's host resolves to an address that is not public.";
    DeliveryFailed "DELIVERY_FAILED" Transient 502 "The webhook's receiver did not answer with 2xx.";
    // --- dependencies
    StoreUnavailable "STORE_UNAVAILABLE" Transient 503 "The object store does not answer; it is tried again.";
    ObjectMissing "OBJECT_MISSING" Permanent 404 "The object is gone from the store; upload the file again.";
    DatabaseUnavailable "DATABASE_UNAVAILABLE" Transient 503 "The database does not answer; retry shortly.";
    BrokerUnavailable "BROKER_UNAVAILABLE" Transient 503 "The broker does not answer; work waits in the database.";
    ProviderError "PROVIDER_ERROR" Transient 502 "The model provider failed; it is tried again.";
    ProviderRefused "PROVIDER_REFUSED" Permanent 502 "The model provider refuses the request; check key and model name.";
    ProviderOutputInvalid "PROVIDER_OUTPUT_INVALID" Internal 502 "The model's output does not fit its schema.";
    BudgetExceeded "BUDGET_EXCEEDED" Transient 402 "Raise the tenant's budget; held work then goes on.";
    PriceUnknown "PRICE_UNKNOWN" Permanent 402 "Enter the model's price in the table of `llm.prices`, or lift the tenant's hard budget.";
    ConfigInvalid "CONFIG_INVALID" Permanent 500 "Correct the named setting.";
    PartMissing "PART_MISSING" Permanent 500 "Run `docmill setup`.";
    Internal "INTERNAL" Internal 500 "Unexpected; report it with the request id.";
}

impl Code {
    /// What its page says.
    #[must_use]
    pub fn page(self) -> CodePage {
        let section = |title: &str| {
            let mut parts = self.markdown().split("\n## ");
            parts.find_map(|part| part.strip_prefix(title)).unwrap_or_default().trim()
        };
        CodePage {
            path: format!("deploy/codes/{self}.md"),
            meaning: section("What happened\n"),
            remedy: section("What to do\n"),
        }
    }
}

/// What the page of a code says, in Markdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodePage {
    /// Where it is in the repository.
    pub path: String,
    /// What happened.
    pub meaning: &'static str,
    /// What to do, and what to look at before.
    pub remedy: &'static str,
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Code::parse(&text).ok_or_else(|| serde::de::Error::custom("unknown error code"))
    }
}

/// A typed failure: code, a sentence without document text, and what was measured against which limit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// The stable code.
    pub code: Code,
    /// What happened. Never holds document text or secrets.
    pub message: String,
    /// The limit that spoke, with its unit in the name of the code or message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<u64>,
}

impl Failure {
    /// A failure without a limit.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), limit: None, measured: None }
    }

    /// A failure at a limit.
    pub fn limit(code: Code, message: impl Into<String>, limit: u64, measured: u64) -> Self {
        Self { code, message: message.into(), limit: Some(limit), measured: Some(measured) }
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn codes_round_trip_and_are_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for &code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code} twice");
            assert_eq!(Code::parse(code.as_str()), Some(code));
            assert!(code.help().ends_with('.'), "{code} has no sentence");
        }
    }

    #[test]
    fn every_page_says_what_happened_and_what_to_do() {
        for &code in Code::ALL {
            assert!(code.markdown().starts_with(&format!("# {code}\n")), "the page of {code} is another's");
            let page = code.page();
            for part in [page.meaning, page.remedy] {
                assert!(!part.is_empty() && !part.contains("\n## "), "{code}: {part}");
            }
        }
    }
}
