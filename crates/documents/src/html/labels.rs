//! What names, roles and classes say about an element: its author's own words for menu, teaser or article.
//!
//! Only whole words count (`related-posts` has `related`, `correlated` has not), so that the lists stay short and
//! hold for pages never seen. Whether a label is believed is decided elsewhere, by the text that it covers.

use super::dom::Dom;

/// Words that name what is not content.
const FURNITURE: [&str; 95] = [
    "ad",
    "ads",
    "adbox",
    "adslot",
    "adunit",
    "advert",
    "advertisement",
    "advertising",
    "advertorial",
    "affiliate",
    "alert",
    "announcement",
    "authorbox",
    "banner",
    "bio",
    "bookmark",
    "breadcrumb",
    "breadcrumbs",
    "bottombar",
    "byline",
    "bylines",
    "carousel",
    "consent",
    "cookie",
    "cookies",
    "copyright",
    "credits",
    "cta",
    "dateline",
    "disclaimer",
    "donate",
    "dropdown",
    "email",
    "embed",
    "facebook",
    "feedback",
    "flyout",
    "follow",
    "footer",
    "foot",
    "gallery",
    "gdpr",
    "hamburger",
    "hidden",
    "jumbotron",
    "latest",
    "legal",
    "links",
    "login",
    "mailing",
    "masthead",
    "menu",
    "meta",
    "metadata",
    "mobile",
    "modal",
    "more",
    "mostread",
    "nav",
    "navbar",
    "navigation",
    "newsletter",
    "newsletters",
    "noprint",
    "outbrain",
    "overlay",
    "pager",
    "pagination",
    "paging",
    "pinterest",
    "player",
    "popular",
    "popup",
    "postmeta",
    "print",
    "promo",
    "promotion",
    "rail",
    "recirc",
    "recirculation",
    "recommend",
    "recommendations",
    "recommended",
    "related",
    "share",
    "sharebar",
    "sharedaddy",
    "sharing",
    "sidebar",
    "signup",
    "skip",
    "social",
    "sponsor",
    "sponsored",
    "subscribe",
];
const FURNITURE_MORE: [&str; 32] = [
    "subscription",
    "syndication",
    "taboola",
    "tag",
    "tags",
    "taglist",
    "teaser",
    "teasers",
    "toolbar",
    "tooltip",
    "topbar",
    "trending",
    "tweet",
    "twitter",
    "utility",
    "video",
    "videos",
    "whatsapp",
    "widget",
    "widgets",
    "jp",
    "adsbygoogle",
    "nocontent",
    "screenreader",
    "sr",
    "yarpp",
    "zergnet",
    "offcanvas",
    "pullquote",
    "caption",
    "captions",
    "mpu",
];
/// Words that name what readers wrote below an article.
const COMMENTS: [&str; 8] =
    ["comment", "comments", "commentlist", "commentary", "disqus", "respond", "discussion", "replies"];
/// Words for the story itself, each with a word that must stand beside it (empty: stands alone).
const STORY: [(&str, &str); 24] = [
    ("articlebody", ""),
    ("storybody", ""),
    ("postbody", ""),
    ("postcontent", ""),
    ("entrycontent", ""),
    ("article", "body"),
    ("story", "body"),
    ("post", "body"),
    ("entry", "body"),
    ("news", "body"),
    ("blog", "body"),
    ("article", "content"),
    ("story", "content"),
    ("post", "content"),
    ("entry", "content"),
    ("news", "content"),
    ("blog", "content"),
    ("article", "text"),
    ("story", "text"),
    ("post", "text"),
    ("news", "text"),
    ("body", "copy"),
    ("body", "text"),
    ("rich", "body"),
];

/// Words of class and id, lower case, cut at hyphens, underscores and capitals.
pub(super) fn words(dom: &Dom, at: usize) -> Vec<String> {
    let mut words = Vec::new();
    for value in [dom.attr(at, "class"), dom.attr(at, "id")].into_iter().flatten() {
        let mut word = String::new();
        let mut small = false;
        for c in value.chars() {
            if (!c.is_alphanumeric() || (small && c.is_uppercase())) && !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            small = c.is_lowercase();
            if c.is_alphanumeric() {
                word.extend(c.to_lowercase());
            }
        }
        if !word.is_empty() {
            words.push(word);
        }
    }
    words
}

/// How an element presents itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// Nothing said.
    None,
    /// Menu, banner, teaser, advertisement.
    Furniture,
    /// Readers' comments.
    Comments,
}

/// The label of an element by tag, role, class and id.
pub(super) fn label(dom: &Dom, at: usize) -> Label {
    let name = dom.name(at);
    if matches!(
        name,
        "nav" | "footer" | "aside" | "dialog" | "menu" | "button" | "select" | "option" | "label" | "figcaption"
    ) {
        return Label::Furniture;
    }
    if let Some(role) = dom.attr(at, "role") {
        let role = role.to_ascii_lowercase();
        let roles = [
            "navigation",
            "banner",
            "contentinfo",
            "complementary",
            "dialog",
            "alertdialog",
            "alert",
            "search",
            "menu",
            "menubar",
            "toolbar",
            "tooltip",
            "button",
        ];
        if roles.contains(&role.as_str()) {
            return Label::Furniture;
        }
    }
    if matches!(name, "html" | "body" | "main" | "article" | "h1") {
        return Label::None;
    }
    let words = words(dom, at);
    let has = |list: &[&str]| words.iter().any(|w| list.contains(&w.as_str()));
    if has(&COMMENTS) {
        Label::Comments
    } else if has(&FURNITURE) || has(&FURNITURE_MORE) {
        Label::Furniture
    } else {
        Label::None
    }
}

/// True where the author names the element the story's text.
pub(super) fn is_story(dom: &Dom, at: usize) -> bool {
    if dom.attr(at, "itemprop").is_some_and(|p| p.to_ascii_lowercase().split_whitespace().any(|p| p == "articlebody")) {
        return true;
    }
    if !matches!(dom.name(at), "div" | "section" | "article" | "main" | "td" | "span") {
        return false;
    }
    let words = words(dom, at);
    let adjacent = |a: &str, b: &str| words.windows(2).any(|pair| pair[0] == a && pair[1] == b);
    STORY.iter().any(|&(a, b)| if b.is_empty() { words.iter().any(|w| w == a) } else { adjacent(a, b) })
}
