//! The initial people and their texts. The prices are real, the rest is made up.

/// Real month-end prices; `data/README.md` names the source.
const PRICES: &str = include_str!("../data/stocks.csv");

/// Everybody follows the celebrity.
pub const CELEBRITY: &str = "tickertape";

/// Followers of the celebrity without a visitor: too many for one write each.
pub const READER_COUNT: usize = 5_000;

/// Name, and self-description.
pub const PEOPLE: [(&str, &str); 24] = [
    (CELEBRITY, "every closing price there was"),
    ("ada", "numbers, mostly"),
    ("bob", "always at the other end"),
    ("carol", "hiking and hash tables"),
    ("dave", "bakes on Sundays"),
    ("erin", "reads the small print"),
    ("frank", "plain words"),
    ("grace", "keeps the lights on"),
    ("heidi", "mountains"),
    ("ivan", "night trains"),
    ("judy", "chairs the meeting"),
    ("kim", "kites"),
    ("leo", "lentils, forty ways"),
    ("mia", "maps"),
    ("nils", "rowing before breakfast"),
    ("olga", "old radios"),
    ("peggy", "can prove it"),
    ("quentin", "queues"),
    ("rupert", "roses"),
    ("sybil", "several opinions"),
    ("trent", "trusted by all"),
    ("uma", "umbrellas, lost and found"),
    ("victor", "checks twice"),
    ("wendy", "weather"),
];

/// Texts for the posts of all other people, in turn.
pub const LINES: [&str; 16] = [
    "The lake was so still this morning that I saw every star twice.",
    "Bread number forty-one has finally risen.",
    "Does anybody else sort their books by the colour of the sea?",
    "A queue with a bound is a promise. One without is a hope.",
    "The night train was on time. I was not.",
    "Found an umbrella. Lost another one. The balance holds.",
    "If it is not tested, it is a rumour.",
    "Rain until noon, and then the kind of light that forgives it.",
    "Lentils again. No regrets.",
    "The map said path. The path said otherwise.",
    "Repaired a radio from 1951; it still knows only good news.",
    "Fewer slides, more windows.",
    "Saw a kite over the harbour with nobody at the string.",
    "I have read the small print so that you need not. Read it anyway.",
    "Roses pruned, fingers counted, all there.",
    "The proof fits on a postcard. The postcard is in the mail.",
];

/// The celebrity's posts: real prices, each with its change since the month before.
pub fn prices() -> impl Iterator<Item = String> {
    let rows = PRICES.lines().skip(1).filter_map(|line| {
        let mut fields = line.split(',');
        Some((fields.next()?, fields.next()?, fields.next()?.parse::<f64>().ok()?))
    });
    let mut before: Option<(&str, f64)> = None;
    rows.map(move |(symbol, date, price)| {
        let last = before.replace((symbol, price)).filter(|(before, _)| *before == symbol);
        let change = last.map(|(_, last)| 100.0 * (price / last - 1.0));
        let change = change.map(|change| format!(", {change:+.1} % in a month"));
        format!("{symbol} at {price:.2} USD on {date}{}", change.unwrap_or_default())
    })
}

/// Name of reader `number`, modulo [`READER_COUNT`].
pub fn reader(number: usize) -> String {
    format!("reader-{:04}", number % READER_COUNT)
}

/// Pairs (follower, author) at the start. The number of followers falls with the place in the list:
/// half of the people follow the second, a third the third and so on.
pub fn follows() -> Vec<(String, String)> {
    let names = || PEOPLE.iter().map(|(name, _)| *name);
    let mut follows = Vec::new();
    for (place, author) in names().enumerate() {
        let is_fan = |number: usize| (7 * number + 3 * place).is_multiple_of(place + 1);
        let fans = names().enumerate().filter(|(number, _)| is_fan(*number)).map(|(_, name)| name);
        follows.extend(fans.map(|fan| (fan.to_owned(), author.to_owned())));
    }
    follows.extend([("ada", "bob"), ("bob", "ada")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    follows.extend((0..READER_COUNT).map(|number| (reader(number), CELEBRITY.to_owned())));
    follows.retain(|(follower, author)| follower != author);
    follows
}
