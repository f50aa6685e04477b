//! Calendar dates in the spellings of many languages → ISO 8601.
//!
//! Day-first or month-first is decided for the whole document: by the dates that leave no choice, else by its currency
//! and language. Two-digit years lie between 1970 and 2069.

use super::{captures, pattern};
use crate::extract::reading::Found;
use std::collections::HashMap;
use std::sync::LazyLock;
use time::{Date, Month};

/// All dates, in order.
pub(in crate::extract) fn dates(text: &str, language: Option<&str>) -> Vec<Found> {
    let numeric = numeric(text);
    let month_first = month_first(&numeric, text, language);
    let mut found = Vec::new();
    for date in &numeric {
        let (day, month) = match date.order {
            Order::DayFirst => (date.first, date.second),
            Order::MonthFirst => (date.second, date.first),
            Order::Open if month_first => (date.second, date.first),
            Order::Open => (date.first, date.second),
        };
        let confidence = if date.order == Order::Open && day != month { 0.85 } else { 0.98 };
        push(&mut found, date.range.clone(), date.year, month, day, confidence);
    }
    year_first(text, &mut found);
    named(text, &mut found);
    found.sort_by_key(|found| (found.range.start, usize::MAX - found.range.end));
    let mut end = 0;
    found.retain(|date| {
        let keeps = date.range.start >= end;
        end = if keeps { date.range.end } else { end };
        keeps
    });
    found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    DayFirst,
    MonthFirst,
    Open,
}

struct Numeric {
    range: std::ops::Range<usize>,
    first: u32,
    second: u32,
    year: i32,
    order: Order,
}

/// `3.5.2024`, `03/05/24`, `3-5-2024`.
fn numeric(text: &str) -> Vec<Numeric> {
    let expression =
        pattern!(r"(?:^|[^\p{L}\d./:-])((\d{1,2}) ?([./-]) ?(\d{1,2}) ?([./-]) ?(\d{4}|\d{2}))(?:$|[^\d%/-])");
    let mut found = Vec::new();
    for groups in captures(expression, text) {
        let (Some(whole), Some(separator)) = (groups.get(1), groups.get(3)) else { continue };
        let (first, second, year) = (number(&groups[2]), number(&groups[4]), full_year(&groups[6]));
        if separator.as_str() != &groups[5] {
            continue;
        }
        let order = match (first > 12, second > 12, separator.as_str()) {
            (true, true, _) => continue,
            (true, false, _) => Order::DayFirst,
            (false, true, _) => Order::MonthFirst,
            (false, false, ".") => Order::DayFirst,
            _ => Order::Open,
        };
        found.push(Numeric { range: whole.range(), first, second, year, order });
    }
    found
}

fn month_first(numeric: &[Numeric], text: &str, language: Option<&str>) -> bool {
    let votes = |order: Order| numeric.iter().filter(|date| date.order == order).count();
    let (day, month) = (votes(Order::DayFirst), votes(Order::MonthFirst));
    if day != month {
        return month > day;
    }
    let is_english = matches!(language, None | Some("eng"));
    let is_american = text.contains("USD")
        || (text.contains('$') && !["A$", "C$", "NZ$", "S$", "HK$"].iter().any(|other| text.contains(other)));
    is_english && is_american && !text.contains('€') && !text.contains('£') && !text.contains("GST")
}

/// `2024-05-03`, `2024/5/3`, `2024年5月3日`.
fn year_first(text: &str, found: &mut Vec<Found>) {
    let plain = pattern!(r"(?:^|[^\d./-])((\d{4}) ?[-/.] ?(\d{1,2}) ?[-/.] ?(\d{1,2}))(?:$|[^\d/-])");
    let ideographic = pattern!(r"((\d{4}) ?[年년] ?(\d{1,2}) ?[月월] ?(\d{1,2}) ?[日일])");
    for groups in captures(plain, text).chain(captures(ideographic, text)) {
        let Some(whole) = groups.get(1) else { continue };
        push(found, whole.range(), number(&groups[2]) as i32, number(&groups[3]), number(&groups[4]), 1.0);
    }
}

/// `3 May 2024`, `May 3rd, 2024`, `3. Mai 2024`, `3 de mayo de 2024`, `03-MAY-24`, `the 3rd day of May, 2024`.
fn named(text: &str, found: &mut Vec<Found>) {
    let day_first = pattern!(
        r"(?i)(?:^|[^\p{L}\d])((\d{1,2})(?:st|nd|rd|th|er|º|\.)?(?: ?[-/ ] ?|\s+)?(?:day of |de |of |d')?(\p{L}{3,12})\.?,?(?: ?[-/ ] ?|\s+)?(?:de |del )?['’]?(\d{4}|\d{2}))(?:$|[^\d:])"
    );
    for groups in captures(day_first, text) {
        let (Some(whole), Some(month)) = (groups.get(1), month_named(&groups[3])) else { continue };
        push(found, whole.range(), full_year(&groups[4]), month, number(&groups[2]), 1.0);
    }
    let spelled =
        pattern!(r"(?i)(?:^|[^\p{L}\d])((\d{1,2})(?:st|nd|rd|th)?\s+day\s+of\s+(\p{L}{3,12})\s*,?\s+(\d{4}))(?:$|\D)");
    for groups in captures(spelled, text) {
        let (Some(whole), Some(month)) = (groups.get(1), month_named(&groups[3])) else { continue };
        push(found, whole.range(), full_year(&groups[4]), month, number(&groups[2]), 1.0);
    }
    let month_first = pattern!(
        r"(?i)(?:^|[^\p{L}\d])((\p{L}{3,12})\.?[\s-]+(\d{1,2})(?:st|nd|rd|th)?[\s,-]+['’]?(\d{4}|\d{2}))(?:$|[^\d:])"
    );
    for groups in captures(month_first, text) {
        let (Some(whole), Some(month)) = (groups.get(1), month_named(&groups[2])) else { continue };
        push(found, whole.range(), full_year(&groups[4]), month, number(&groups[3]), 1.0);
    }
}

fn push(found: &mut Vec<Found>, range: std::ops::Range<usize>, year: i32, month: u32, day: u32, confidence: f32) {
    let month = u8::try_from(month).ok().and_then(|month| Month::try_from(month).ok());
    let date =
        month.zip(u8::try_from(day).ok()).and_then(|(month, day)| Date::from_calendar_date(year, month, day).ok());
    if let Some(date) = date.filter(|_| (1800..2200).contains(&year)) {
        let iso = format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day());
        found.push(Found::new(range, iso, confidence));
    }
}

fn number(digits: &str) -> u32 {
    digits.parse().unwrap_or(0)
}

fn full_year(digits: &str) -> i32 {
    let year: i32 = digits.parse().unwrap_or(0);
    match (digits.len(), year) {
        (2, 0..70) => 2000 + year,
        (2, _) => 1900 + year,
        _ => year,
    }
}

/// English, German, French, Spanish, Italian, Portuguese, Dutch, Polish (genitive), Danish, Norwegian, Swedish, Russian (genitive).
const MONTHS: [&str; 12] = [
    "january jan januar jänner janvier janv enero ene gennaio gen janeiro januari stycznia января",
    "february feb februar febr février févr fevrier febrero febbraio fevereiro fev februari lutego февраля",
    "march mar märz maerz mrz mars marzo março marco maart mrt marca marts марта",
    "april apr avril avr abril abr aprile kwietnia апреля",
    "may mai mayo maggio mag maio mei maja maj мая",
    "june jun juni juin junio giugno giu junho czerwca июня",
    "july jul juli juillet juil julio luglio lug julho lipca июля",
    "august aug août aout agosto ago augustus sierpnia augusti августа",
    "september sep sept septembre septiembre setiembre settembre setembro set września сентября",
    "october oct oktober okt octobre octubre ottobre ott outubro out października октября",
    "november nov novembre noviembre novembro listopada ноября",
    "december dec dezember dez décembre déc decembre diciembre dic dicembre dezembro grudnia desember декабря",
];

fn month_named(word: &str) -> Option<u32> {
    static BY_NAME: LazyLock<HashMap<&'static str, u32>> = LazyLock::new(|| {
        let months = MONTHS.iter().zip(1u32..);
        months.flat_map(|(names, month)| names.split(' ').map(move |name| (name, month))).collect()
    });
    BY_NAME.get(word.to_lowercase().as_str()).copied()
}

#[cfg(test)]
mod tests {
    use super::dates;

    fn read(text: &str) -> Vec<String> {
        dates(text, Some("eng")).iter().map(|found| found.normalized.as_str().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn many_spellings_have_one_normal_form() {
        let spellings = [
            "2024-05-03",
            "3.5.2024",
            "03.05.24",
            "May 3, 2024",
            "May 3rd 2024",
            "3 May 2024",
            "3rd of May 2024",
            "3. Mai 2024",
            "3 mai 2024",
            "3 de mayo de 2024",
            "3 maggio 2024",
            "3 de maio de 2024",
            "3 mei 2024",
            "3 maja 2024",
            "03-MAY-2024",
            "3/May/24",
            "2024年5月3日",
            "the 3rd day of May, 2024",
            "2024/05/03",
        ];
        for spelling in spellings {
            assert_eq!(read(&format!("on {spelling} at")), ["2024-05-03"], "{spelling}");
        }
    }

    #[test]
    fn the_document_decides_the_order_of_day_and_month() {
        assert_eq!(read("03/05/2024 and 25/05/2024"), ["2024-05-03", "2024-05-25"]);
        assert_eq!(read("03/05/2024 and 05/25/2024"), ["2024-03-05", "2024-05-25"]);
        assert_eq!(read("Total $ 12.00 on 03/05/2024"), ["2024-03-05"]);
        assert_eq!(read("Total 12.00 € on 03/05/2024"), ["2024-05-03"]);
    }

    #[test]
    fn what_is_no_date_is_left_alone() {
        for text in
            ["31.02.2024", "13/13/2024", "version 1.2.3", "10.0.0.12", "99/99/99", "page 3 of 20", "3 apples 2024"]
        {
            assert!(read(text).is_empty(), "{text}");
        }
    }
}
