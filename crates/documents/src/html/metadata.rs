//! What a page says about itself: title, author, date, description, language, site.

use super::dom::Dom;
use crate::blocks::DocumentBuilder;

/// `meta` names and properties (lower case) in order of trust, and the metadata key they fill.
const META: [(&str, &str); 22] = [
    ("og:title", "title"),
    ("twitter:title", "title"),
    ("dc.title", "title"),
    ("author", "author"),
    ("article:author_name", "author"),
    ("dc.creator", "author"),
    ("parsely-author", "author"),
    ("sailthru.author", "author"),
    ("article:published_time", "date"),
    ("datepublished", "date"),
    ("date", "date"),
    ("dc.date", "date"),
    ("pubdate", "date"),
    ("parsely-pub-date", "date"),
    ("og:updated_time", "modified"),
    ("article:modified_time", "modified"),
    ("description", "description"),
    ("og:description", "description"),
    ("keywords", "keywords"),
    ("og:site_name", "site"),
    ("generator", "generator"),
    ("dc.language", "language"),
];

/// Copies the page's metadata; the first trusted value of each kind wins.
pub(super) fn read(dom: &Dom, builder: &mut DocumentBuilder) {
    let metas: Vec<(String, &str)> = (0..dom.len())
        .filter(|&at| dom.name(at) == "meta")
        .filter_map(|at| {
            let name =
                dom.attr(at, "name").or_else(|| dom.attr(at, "property")).or_else(|| dom.attr(at, "itemprop"))?;
            Some((name.to_ascii_lowercase(), dom.attr(at, "content")?))
        })
        .collect();
    let in_head = |at: usize| dom.lineage(at).any(|up| dom.name(up) == "head");
    if let Some(title) = (0..dom.len()).find(|&at| dom.name(at) == "title" && in_head(at)) {
        builder.metadata("title", &collapse(&dom.text(title)));
    }
    for (name, key) in META {
        for (_, content) in metas.iter().filter(|(found, _)| found == name) {
            builder.metadata(key, &collapse(content));
        }
    }
    for at in 0..dom.len() {
        match dom.name(at) {
            "html" => builder.metadata("language", dom.attr(at, "lang").unwrap_or_default()),
            "time" => builder.metadata("date", dom.attr(at, "datetime").unwrap_or_default()),
            "link" if dom.attr(at, "rel") == Some("canonical") => {
                builder.metadata("url", dom.attr(at, "href").unwrap_or_default());
            }
            _ if dom.attr(at, "rel") == Some("author") => builder.metadata("author", &collapse(&dom.text(at))),
            _ => {}
        }
    }
}

fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
