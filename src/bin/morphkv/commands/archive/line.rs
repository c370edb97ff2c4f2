//! The times that an archive can be restored to, drawn as a line.

use morphkv::log_backup::overview::Span;

/// `├──●───●──┤┄┄├●──┤`: a span with its base snapshots, what is lost, the next span. None if nothing can be restored.
pub fn line(spans: &[Span], width: usize) -> Option<String> {
    let (first, last) = (spans.first()?.from, spans.last()?.to);
    let width = width.max(2);
    let column = |time: u64| {
        let (at, all) = (u128::from(time.saturating_sub(first)), u128::from(last.saturating_sub(first)).max(1));
        usize::try_from(at * (width as u128 - 1) / all).unwrap_or(0).min(width - 1)
    };
    let mut cells = vec!['┄'; width];
    for span in spans {
        let (from, to) = (column(span.from), column(span.to));
        cells[from..=to].fill('─');
        (cells[from], cells[to]) = ('├', '┤');
        for base in &span.bases {
            cells[column(*base)] = '●';
        }
    }
    Some(cells.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, to: u64, bases: &[u64]) -> Span {
        Span { from, to, timelines: Vec::new(), bases: bases.to_vec() }
    }

    #[test]
    fn spans_bases_and_what_is_lost() {
        assert_eq!(line(&[], 10), None);
        assert_eq!(line(&[span(0, 100, &[50])], 11).unwrap(), "├────●────┤");
        assert_eq!(line(&[span(0, 40, &[]), span(60, 100, &[80])], 11).unwrap(), "├───┤┄├─●─┤");
    }

    #[test]
    fn one_moment_and_the_ends_of_time() {
        assert_eq!(line(&[span(5, 5, &[5])], 4).unwrap(), "●┄┄┄");
        assert_eq!(line(&[span(0, u64::MAX, &[u64::MAX])], 3).unwrap(), "├─●");
        assert_eq!(line(&[span(9, 3, &[])], 0).unwrap().chars().count(), 2);
    }
}
