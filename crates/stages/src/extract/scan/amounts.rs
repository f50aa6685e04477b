//! Money: a number with a currency → decimal string and ISO 4217 code.
//!
//! Points and commas are read by where they stand: the last separator before one or two digits is the decimal one.
//! A number without a currency is money only beside a label; [`bare_amounts`] finds those.

use super::{captures, pattern};
use crate::extract::reading::Found;
use serde_json::{Value, json};

/// All amounts that carry a currency, in order.
pub(in crate::extract) fn amounts(text: &str) -> Vec<Found> {
    let expression = pattern!(
        r"(?x)
        (?: (?:^|[^\p{L}\p{N}]) (?P<before> US\$|A\$|C\$|NZ\$|HK\$|S\$|R\$|\$|€|£|¥|₹|Rs\.?|RM|Fr\.|SFr\.?|kr\.?|zł|USD|EUR|GBP|CHF|JPY|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|RON|BGN|TRY|ZAR|BRL|MXN|SGD|HKD|MYR|THB|IDR|KRW|ILS|AED|RUB|Euro) [\ \x{a0}:]{0,2} )?
        (?P<sign> -|–|− )? [\ ]?
        (?P<number> \d{1,3}(?:[.,'’\ \x{a0}\x{202f}]\d{3})+(?:[.,]\d{1,2})? | \d+(?:[.,]\d{1,2})? )
        (?: [,.][-–—]{1,2} )?
        (?P<scale> [\ \x{a0}]? (?:thousand|million|billion|mio\.?|mrd\.?|Tsd\.?|Millionen|Milliarden|millions|k|m|bn)\b )?
        (?: [\ \x{a0}]{0,2} (?P<after> €|\$|£|¥|₹|kr\.?|zł|USD|EUR|GBP|CHF|JPY|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|RON|BGN|TRY|ZAR|BRL|MXN|SGD|HKD|MYR|THB|IDR|KRW|ILS|AED|RUB|Euros?|euros?|dollars?|pounds) )?"
    );
    let mut found = Vec::new();
    for groups in captures(expression, text) {
        let Some(number) = groups.name("number") else { continue };
        let (before, after) = (groups.name("before"), groups.name("after"));
        let marks = before.map(|mark| mark.as_str()).or(after.map(|mark| mark.as_str()));
        let Some(currency) = marks.and_then(currency) else { continue };
        let ends_word = |end: usize| !text[end..].starts_with(char::is_alphanumeric);
        let end = match after {
            Some(mark) if ends_word(mark.end()) || !mark.as_str().ends_with(char::is_alphabetic) => mark.end(),
            Some(_) if before.is_none() => continue,
            _ => groups.name("scale").map_or(number.end(), |scale| scale.end()),
        };
        let start = before.map_or(groups.name("sign").map_or(number.start(), |sign| sign.start()), |mark| mark.start());
        let Some(amount) = decimal(number.as_str(), groups.name("scale").map(|scale| scale.as_str())) else { continue };
        let amount = if groups.name("sign").is_some() { format!("-{amount}") } else { amount };
        found.push(Found::new(start..end, json!({ "amount": amount, "currency": currency }), 0.98));
    }
    found
}

/// Numbers with two decimals and no currency; `currency` is what the rest of the document is in, if that is clear.
pub(in crate::extract) fn bare_amounts(text: &str, currency: Option<&str>) -> Vec<Found> {
    let expression = pattern!(
        r"(?:^|[^\p{L}\p{N}.,/:-])(-?(?:\d{1,3}(?:[.,'’ ]\d{3})+|\d+)[.,]\d{2})(?:$|[^\p{N}.,/%:-]|[.,](?:\s|$))"
    );
    let mut found = Vec::new();
    let mut from = 0;
    // Neighbouring numbers share the blank between them, so matching goes on at the end of each number.
    while let Some(groups) = expression.and_then(|expression| expression.captures_at(text, from)) {
        let Some(number) = groups.get(1) else { break };
        from = number.end();
        let digits = number.as_str().trim_start_matches('-');
        let Some(amount) = decimal(digits, None) else { continue };
        let amount = if number.as_str().starts_with('-') { format!("-{amount}") } else { amount };
        let mut value = json!({ "amount": amount });
        if let Some(currency) = currency {
            value["currency"] = Value::from(currency);
        }
        found.push(Found::new(number.range(), value, 0.8));
    }
    found
}

/// The only currency of the amounts found, if there is just one.
pub(in crate::extract) fn only_currency(amounts: &[Found]) -> Option<&str> {
    let mut currencies = amounts.iter().filter_map(|found| found.normalized["currency"].as_str());
    let first = currencies.next()?;
    currencies.all(|other| other == first).then_some(first)
}

/// A written number as plain decimal digits, `.` before the fraction.
pub(in crate::extract) fn decimal(written: &str, scale: Option<&str>) -> Option<String> {
    let separators = [' ', '\u{a0}', '\u{202f}', '\'', '’'];
    let compact: String = written.chars().filter(|c| !separators.contains(c)).collect();
    let last = compact.rfind(['.', ',']);
    let fraction_digits = last.map_or(0, |at| compact.len() - at - 1);
    let (whole, fraction) = match last {
        Some(at) if fraction_digits != 3 => (&compact[..at], &compact[at + 1..]),
        _ => (compact.as_str(), ""),
    };
    let digits: String = whole.chars().filter(char::is_ascii_digit).collect();
    let digits = if digits.is_empty() { "0" } else { digits.trim_start_matches('0') };
    let digits = if digits.is_empty() { "0" } else { digits };
    let zeros = match scale.map(|scale| scale.trim().trim_end_matches('.').to_lowercase()) {
        None => return Some(if fraction.is_empty() { digits.to_owned() } else { format!("{digits}.{fraction}") }),
        Some(scale) if ["thousand", "k", "tsd"].contains(&scale.as_str()) => 3,
        Some(scale) if ["million", "millions", "mio", "millionen", "m"].contains(&scale.as_str()) => 6,
        Some(_) => 9,
    };
    let scaled = format!("{digits}{fraction}{}", "0".repeat(zeros - fraction.len().min(zeros)));
    let scaled = scaled.trim_start_matches('0');
    (!scaled.is_empty()).then(|| scaled.to_owned())
}

fn currency(mark: &str) -> Option<&str> {
    Some(match mark.trim_end_matches('.') {
        "$" | "US$" | "dollar" | "dollars" => "USD",
        "€" | "Euro" | "Euros" | "euro" | "euros" => "EUR",
        "£" | "pounds" => "GBP",
        "¥" => "JPY",
        "₹" | "Rs" => "INR",
        "RM" => "MYR",
        "Fr" | "SFr" => "CHF",
        "zł" => "PLN",
        "A$" => "AUD",
        "C$" => "CAD",
        "NZ$" => "NZD",
        "HK$" => "HKD",
        "S$" => "SGD",
        "R$" => "BRL",
        "kr" => "SEK",
        code if code.len() == 3 => code,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{amounts, bare_amounts, decimal};

    fn read(text: &str) -> Vec<String> {
        let show = |value: &serde_json::Value| {
            format!("{} {}", value["amount"].as_str().unwrap_or("?"), value["currency"].as_str().unwrap_or("?"))
        };
        amounts(text).iter().map(|found| show(&found.normalized)).collect()
    }

    #[test]
    fn separators_of_all_conventions() {
        let written = ["1,234.56", "1.234,56", "1 234,56", "1'234.56", "1234.56", "1234,56"];
        for number in written {
            assert_eq!(decimal(number, None).as_deref(), Some("1234.56"), "{number}");
        }
        assert_eq!(decimal("1.234", None).as_deref(), Some("1234"));
        assert_eq!(decimal("0.50", None).as_deref(), Some("0.50"));
        assert_eq!(decimal("2.5", Some(" million")).as_deref(), Some("2500000"));
    }

    #[test]
    fn currencies_before_and_after() {
        assert_eq!(read("Total: $1,234.56 due"), ["1234.56 USD"]);
        assert_eq!(read("Summe 1.234,56 € fällig"), ["1234.56 EUR"]);
        assert_eq!(read("CHF 12'000.– per year"), ["12000 CHF"]);
        assert_eq!(read("a loan of US$ 2.5 million and £30"), ["2500000 USD", "30 GBP"]);
        assert_eq!(read("RM 33.90"), ["33.90 MYR"]);
        assert_eq!(read("EUR 100,- and 20 EUR"), ["100 EUR", "20 EUR"]);
        assert_eq!(read("refund of -5,00 €"), ["-5.00 EUR"]);
    }

    #[test]
    fn numbers_without_currency_are_not_money_by_themselves() {
        assert!(read("Room 1234, 56 people, 3.50 m").is_empty());
        let bare: Vec<String> = bare_amounts("3 12.50 37.50", Some("EUR"))
            .iter()
            .map(|found| found.normalized["amount"].as_str().unwrap_or("?").to_owned())
            .collect();
        assert_eq!(bare, ["12.50", "37.50"]);
    }
}
