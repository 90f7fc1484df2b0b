//! What is taken for what: a confusion matrix, or of many classes the commonest confusions.

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{TEXT_SIZE, TITLE_SIZE, blend, class_name};
use crate::report::chart::{Area, BLUE, Drawn, FAINT, FONT, INK, PALE, draw};

/// More classes than this have no matrix.
const MOST_CLASSES: usize = 25;

/// Confusions that are listed of many classes.
const LISTED: usize = 20;

/// The size of the shares below the counts.
const SMALL_SIZE: i32 = 13;

/// About so many pixels a character of a name takes.
const CHARACTER: i32 = 9;

/// The true and the predicted class of some rows, and how many these are; none is 0, and none stands there twice.
pub(crate) type CellCount = (usize, usize, u64);

/// The cells of a confusion matrix, each with its count and its share of the true class, which is its colour; of more
/// than 25 classes the 20 commonest confusions. `what` says of which part, and `unit` what is counted. Nothing where
/// there is nothing to count, or no confusion to list.
pub(crate) fn confusion(
    labels: &[String],
    cells: &[CellCount],
    what: &str,
    unit: &str,
) -> Option<String> {
    let mut totals = vec![0_u64; labels.len()];
    for (truth, _, count) in cells {
        totals[*truth] += *count;
    }
    if cells.is_empty() {
        None
    } else if labels.len() > MOST_CLASSES {
        let heading = format!("The commonest confusions on {what}");
        commonest(labels, cells, &totals, [&heading, unit])
    } else {
        let heading = format!("Confusion on {what}: {unit}, and their share of the true class");
        Some(matrix(labels, cells, &totals, &heading))
    }
}

fn text(size: i32, color: &RGBColor, horizontal: HPos) -> TextStyle<'static> {
    let style = (FONT, size).into_font().color(color);
    style.pos(Pos::new(horizontal, VPos::Center))
}

fn title(area: &Area<'_>, title: &str) -> Drawn {
    Ok(area.draw_text(title, &text(TITLE_SIZE, &INK, HPos::Left), (24, 26))?)
}

/// `count` of `total` in per cent.
fn percent(count: u64, total: u64) -> String {
    format!("{:.0} %", 100.0 * count as f64 / total as f64)
}

fn matrix(labels: &[String], cells: &[CellCount], totals: &[u64], heading: &str) -> String {
    const HEIGHT: i32 = 40;
    let names: Vec<String> = (0..labels.len()).map(|class| class_name(labels, class)).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let longest = CHARACTER * longest as i32;
    let most = cells.iter().map(|(.., count)| *count).max().unwrap_or(0);
    let width = (CHARACTER * most.to_string().len() as i32 + 16).max(52);
    // Names that are wider than a column stand upright.
    let is_upright = longest + 8 > width;
    let left = 34 + longest.max(CHARACTER * 4);
    let top = 84 + if is_upright { longest } else { 20 };
    let n_classes = labels.len() as i32;
    let right = (left + width * n_classes).max(11 * heading.chars().count() as i32 + 24);
    let size = ((right + 24) as u32, (top + HEIGHT * n_classes + 24) as u32);
    draw(size, |area| {
        title(area, heading)?;
        let plain = |horizontal| text(TEXT_SIZE, &INK, horizontal);
        area.draw_text("predicted", &plain(HPos::Left), (left, 58))?;
        area.draw_text("true", &plain(HPos::Right), (left - 10, top - 14))?;
        for (class, name) in names.iter().enumerate() {
            let place = class as i32;
            let middle = left + width * place + width / 2;
            if is_upright {
                let upright = plain(HPos::Left).transform(FontTransform::Rotate270);
                area.draw_text(name, &upright, (middle, top - 8))?;
            } else {
                area.draw_text(name, &plain(HPos::Center), (middle, top - 14))?;
            }
            let row = top + HEIGHT * place;
            area.draw_text(name, &plain(HPos::Right), (left - 10, row + HEIGHT / 2))?;
            let line = [(left, row), (left + width * n_classes - 2, row + HEIGHT - 2)];
            area.draw(&Rectangle::new(line, FAINT.mix(0.5).filled()))?;
        }
        for (truth, predicted, count) in cells {
            let share = *count as f64 / totals[*truth] as f64;
            let (x, y) = (left + width * *predicted as i32, top + HEIGHT * *truth as i32);
            let corners = [(x, y), (x + width - 2, y + HEIGHT - 2)];
            area.draw(&Rectangle::new(corners, blend(PALE, BLUE, share).filled()))?;
            let ink = if share > 0.6 { WHITE } else { INK };
            let middle = x + width / 2;
            let (upper, lower) = (y + HEIGHT / 3, y + HEIGHT * 3 / 4);
            let centered = |size| text(size, &ink, HPos::Center);
            area.draw_text(&count.to_string(), &centered(TEXT_SIZE), (middle, upper))?;
            let share = percent(*count, totals[*truth]);
            area.draw_text(&share, &centered(SMALL_SIZE), (middle, lower))?;
        }
        Ok(())
    })
}

fn commonest(
    labels: &[String],
    cells: &[CellCount],
    totals: &[u64],
    [heading, unit]: [&str; 2],
) -> Option<String> {
    const HEIGHT: i32 = 28;
    const TOP: i32 = 84;
    const BAR: i32 = 220;
    let mut wrong: Vec<&CellCount> =
        cells.iter().filter(|(truth, predicted, _)| truth != predicted).collect();
    // Of equal counts in the order of the classes.
    wrong.sort_by_key(|(truth, predicted, count)| (std::cmp::Reverse(*count), *truth, *predicted));
    let most = wrong.first()?.2;
    wrong.truncate(LISTED);
    let names = wrong.iter().map(|(truth, predicted, _)| {
        format!("{} taken for {}", class_name(labels, *truth), class_name(labels, *predicted))
    });
    let names: Vec<String> = names.collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let left = 34 + CHARACTER * longest as i32;
    let right = (left + BAR + 240).max(11 * heading.chars().count() as i32 + 24);
    let size = ((right + 24) as u32, (TOP + HEIGHT * names.len() as i32 + 24) as u32);
    Some(draw(size, |area| {
        title(area, heading)?;
        let plain = |horizontal| text(TEXT_SIZE, &INK, horizontal);
        let caption = format!("{unit}, and their share of the true class");
        area.draw_text(&caption, &plain(HPos::Left), (left, TOP - 20))?;
        for (place, ((truth, _, count), name)) in wrong.iter().zip(&names).enumerate() {
            let y = TOP + HEIGHT * place as i32;
            let end = left + ((*count as f64 / most as f64) * f64::from(BAR)).round() as i32;
            area.draw_text(name, &plain(HPos::Right), (left - 10, y + HEIGHT / 2))?;
            let corners = [(left, y + 4), (end, y + HEIGHT - 4)];
            area.draw(&Rectangle::new(corners, BLUE.filled()))?;
            let said =
                format!("{count} of {}, {}", totals[*truth], percent(*count, totals[*truth]));
            area.draw_text(&said, &plain(HPos::Left), (end + 8, y + HEIGHT / 2))?;
        }
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(n: usize) -> Vec<String> {
        (0..n).map(|class| format!("class {class}")).collect()
    }

    #[test]
    fn a_matrix_has_counts_and_shares_of_the_true_class() {
        let cells = [(0, 0, 30), (0, 1, 10), (1, 1, 7)];
        let svg = confusion(&labels(2), &cells, "test", "rows").unwrap();
        for text in ["Confusion on test", "class 1", ">\n30\n<", ">\n75 %\n<", ">\n25 %\n<"] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        assert_eq!(svg, confusion(&labels(2), &cells, "test", "rows").unwrap());
    }

    #[test]
    fn many_classes_have_a_list_of_what_is_confused() {
        let right = (0..30).map(|class| (class, class, 50));
        let wrong = (0..29).map(|class| (class, class + 1, 1 + class as u64 / 2));
        let cells: Vec<CellCount> = right.clone().chain(wrong).collect();
        let svg = confusion(&labels(30), &cells, "test", "rows").unwrap();
        assert!(svg.contains("The commonest confusions on test"), "{svg}");
        assert_eq!(svg.matches(" taken for ").count(), LISTED);
        assert!(svg.contains("class 28 taken for class 29") && !svg.contains("class 2 taken"));
        assert!(svg.contains("15 of 65, 23 %"), "{svg}");
        let all_right: Vec<CellCount> = right.collect();
        assert_eq!(confusion(&labels(30), &all_right, "test", "rows"), None);
        assert_eq!(confusion(&labels(3), &[], "test", "rows"), None);
    }
}
