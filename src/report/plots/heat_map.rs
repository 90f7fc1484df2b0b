//! The best score of every pair of values of two settings.

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{TEXT_SIZE, TITLE_SIZE, blend};
use crate::{
    metrics::metric::Metric,
    report::chart::{BLUE, FAINT, FONT, INK, ORANGE, PALE, draw},
    selection::heat_map::HeatMap,
};

/// The best score of every pair of values, written into its cell; the best of all has a frame.
pub(crate) fn heat_map(map: &HeatMap, metric: Metric) -> String {
    const HEIGHT: i32 = 30;
    const TOP: i32 = 92;
    let longest = |names: &[String]| names.iter().map(|name| name.chars().count()).max();
    // About 9 pixels a character at this size.
    let left = 34 + 9 * longest(&map.rows).unwrap_or(0).max(map.row_key.len()) as i32;
    let width = (9 * longest(&map.columns).unwrap_or(0) as i32 + 16).max(72);
    let right = left + width * map.columns.len() as i32;
    let bottom = TOP + HEIGHT * map.rows.len() as i32;
    let title = format!("Best validation {metric} by {} and {}", map.row_key, map.column_key);
    let size = ((right + 24).max(48 + 11 * title.chars().count() as i32), bottom + 24);
    let scores = || map.best.iter().flatten().flatten().copied();
    let low = scores().fold(f64::INFINITY, f64::min);
    let high = scores().fold(f64::NEG_INFINITY, f64::max);
    let best = if metric.higher_is_better() { high } else { low };
    let goodness = |score: f64| {
        if high <= low {
            0.5
        } else if metric.higher_is_better() {
            (score - low) / (high - low)
        } else {
            (high - score) / (high - low)
        }
    };
    draw((size.0 as u32, size.1 as u32), |area| {
        let text = |size: i32, color: &RGBColor, horizontal| {
            let style = (FONT, size).into_font().color(color);
            style.pos(Pos::new(horizontal, VPos::Center))
        };
        let plain = |horizontal| text(TEXT_SIZE, &INK, horizontal);
        area.draw_text(&title, &text(TITLE_SIZE, &INK, HPos::Left), (24, 26))?;
        let middle = (left + right) / 2;
        area.draw_text(&map.column_key, &plain(HPos::Center), (middle, TOP - 34))?;
        area.draw_text(&map.row_key, &plain(HPos::Right), (left - 10, TOP - 14))?;
        for (column, name) in map.columns.iter().enumerate() {
            let center = left + width * column as i32 + width / 2;
            area.draw_text(name, &plain(HPos::Center), (center, TOP - 14))?;
        }
        for (row, name) in map.rows.iter().enumerate() {
            let y = TOP + HEIGHT * row as i32;
            area.draw_text(name, &plain(HPos::Right), (left - 10, y + HEIGHT / 2))?;
            for (column, score) in map.best[row].iter().enumerate() {
                let x = left + width * column as i32;
                let cell = |inset: i32| {
                    let end = (x + width - 1 - inset, y + HEIGHT - 1 - inset);
                    [(x + inset, y + inset), end]
                };
                let fill = score.map_or(FAINT, |score| blend(PALE, BLUE, goodness(score)));
                area.draw(&Rectangle::new(cell(0), fill.filled()))?;
                if *score == Some(best) {
                    // The SVG backend draws rectangles with thin lines only.
                    let [(left, top), (right, bottom)] = cell(2);
                    let corners = [(left, top), (right, top), (right, bottom), (left, bottom)];
                    let frame = corners.into_iter().cycle().take(6).collect::<Vec<_>>();
                    area.draw(&PathElement::new(frame, ORANGE.stroke_width(3)))?;
                }
                let ink = match score {
                    Some(score) if goodness(*score) > 0.75 => WHITE,
                    _ => INK,
                };
                let shown = score.map_or("-".to_string(), |score| format!("{score:.3}"));
                let center = (x + width / 2, y + HEIGHT / 2);
                area.draw_text(&shown, &text(TEXT_SIZE, &ink, HPos::Center), center)?;
            }
        }
        Ok(())
    })
}
