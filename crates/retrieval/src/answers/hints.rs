//! What kind of thing a question asks for, and whether a sentence holds one. Words of five languages; others give no
//! hint, which costs rank, never an answer. Pure.

use regex::Regex;
use std::collections::HashSet;
use std::sync::LazyLock;
use unicode_segmentation::UnicodeSegmentation;

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// A person, organisation or thing with a name.
    Name,
    /// A date, year or period.
    Time,
    /// A number or amount.
    Quantity,
    /// A place.
    Place,
    /// Anything.
    Open,
}

static TIME: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?xi)\b(1[0-9]{3}|20[0-9]{2})\b | \b\d{1,2}[./-]\d{1,2}([./-]\d{2,4})?\b | \b(century|centuries|decade|year|month|week|day|hour|minute|jahrhundert|век|год)s?\b
        | \b(january|february|march|april|june|july|august|september|october|november|december|januar|februar|märz|mai|juni|juli|oktober|dezember)\b
        | \b(января|февраля|марта|апреля|мая|июня|июля|августа|сентября|октября|ноября|декабря|году)\b | [0-9一二三四五六七八九十]+[年月日] | \b[0-9]{2,4}s\b",
    )
    .ok()
});
static QUANTITY: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?xi)\d | [½¼¾] | \b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|hundred|thousand|million|billion|half|third|quarter|twice|several|none|both|percent)\b
        | \b(zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|hundert|tausend|millionen)\b | [一二三四五六七八九十百千万]",
    )
    .ok()
});
static ASKED: LazyLock<Vec<(Regex, AnswerKind)>> = LazyLock::new(|| {
    let rules = [
        (
            r"(?i)\bhow\s+(many|much|long|far|old|tall|big|large|often|high|deep|wide|fast)\b|\b(wie\s*viele?|wie\s+(lange|hoch|oft|alt|groß)|combien|cuánt[oa]s?|quanti?)\b|сколько|多少|几个|كم",
            AnswerKind::Quantity,
        ),
        (
            r"(?i)\b(what|which)\b.{0,25}\b(percent|percentage|number|amount|price|cost|fee|total|rate|population|size|score|ratio|speed|temperature)\b",
            AnswerKind::Quantity,
        ),
        (
            r"(?i)\bwhen\b|\b(what|which|in what|in which)\b.{0,20}\b(year|date|day|month|century|decade|time|period|era|season)s?\b|\b(wann|quand|cuándo|quando)\b|in welchem jahr|когда|в каком году|何时|什么时候|哪一年|哪年|متى",
            AnswerKind::Time,
        ),
        (
            r"(?i)\b(who|whom|whose|wer|wem|wessen|qui|quién)\b|\b(what|which)\b.{0,25}\b(name|person|man|woman|company|team|player|party|author|king|queen|president|leader)s?\b|кто|谁|من\s",
            AnswerKind::Name,
        ),
        (
            r"(?i)\bwhere\b|\b(what|which|in what|in which)\b.{0,20}\b(country|city|state|place|location|region|town|river|continent|county|island|street)\b|\b(wo|wohin|dónde|où)\b|где|куда|哪里|哪儿|أين",
            AnswerKind::Place,
        ),
    ];
    rules.into_iter().filter_map(|(pattern, kind)| Some((Regex::new(pattern).ok()?, kind))).collect()
});

/// What `question` asks for.
pub(crate) fn asked_for(question: &str) -> AnswerKind {
    let first = ASKED.iter().filter_map(|(pattern, kind)| Some((pattern.find(question)?.start(), *kind)));
    first.min_by_key(|(start, _)| *start).map_or(AnswerKind::Open, |(_, kind)| kind)
}

/// How well `sentence` holds something of that kind that the question does not already name, 0–1.
pub(crate) fn holds(kind: AnswerKind, sentence: &str, question: &str) -> f64 {
    let found = |pattern: &LazyLock<Option<Regex>>| {
        pattern.as_ref().is_some_and(|pattern| has_new(pattern, sentence, question))
    };
    let yes = match kind {
        AnswerKind::Time => found(&TIME),
        AnswerKind::Quantity => found(&QUANTITY),
        AnswerKind::Name | AnswerKind::Place => has_new_name(sentence, question),
        AnswerKind::Open => return 0.5,
    };
    if yes { 1.0 } else { 0.0 }
}

fn has_new(pattern: &Regex, sentence: &str, question: &str) -> bool {
    let known = question.to_lowercase();
    pattern.find_iter(sentence).any(|found| !known.contains(&found.as_str().to_lowercase()))
}

/// A capitalised word that does not open the sentence and that the question does not hold; scripts without capitals
/// always pass.
fn has_new_name(sentence: &str, question: &str) -> bool {
    let known: HashSet<String> = question.unicode_words().map(str::to_lowercase).collect();
    let has_case = sentence.chars().any(|c| c.is_lowercase() || c.is_uppercase());
    !has_case
        || sentence
            .unicode_words()
            .skip(1)
            .any(|word| word.chars().next().is_some_and(char::is_uppercase) && !known.contains(&word.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_understood_by_their_first_cue() {
        let cases = [
            ("How much is the rent?", AnswerKind::Quantity),
            ("In which year did the lease start?", AnswerKind::Time),
            ("Who signed the contract when it began?", AnswerKind::Name),
            ("Where is the meter?", AnswerKind::Place),
            ("Why was it stopped?", AnswerKind::Open),
            ("Wann endet der Vertrag?", AnswerKind::Time),
            ("合同什么时候结束?", AnswerKind::Time),
        ];
        for (question, kind) in cases {
            assert_eq!(asked_for(question), kind, "{question}");
        }
    }

    #[test]
    fn a_sentence_must_hold_something_the_question_does_not() {
        assert_eq!(holds(AnswerKind::Time, "It began in 1999.", "When did it begin?"), 1.0);
        assert_eq!(holds(AnswerKind::Time, "In 1999 it began.", "When after 1999 did it end?"), 0.0);
        assert_eq!(holds(AnswerKind::Quantity, "The rent is £900.", "How much is the rent?"), 1.0);
        assert_eq!(holds(AnswerKind::Name, "The lease was signed by Ada Stone.", "Who signed the lease?"), 1.0);
        assert_eq!(holds(AnswerKind::Name, "The lease was signed.", "Who signed the lease?"), 0.0);
    }
}
