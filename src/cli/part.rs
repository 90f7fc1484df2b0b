//! Which part of a plan this process does: as `--part` says, or the scheduler that started it.

/// A part, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JobPart {
    pub(super) number: usize,
    pub(super) of: usize,
}

impl JobPart {
    /// Finds out from `K/N`, or `/N` and the number of the job, or the variables of an array job of Slurm alone.
    ///
    /// # Errors
    /// Returns what is wrong, or what to give.
    pub(super) fn find(
        given: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<JobPart, String> {
        let number_of = |name: &str| {
            let value = variable(name).filter(|value| !value.is_empty());
            let parsed = value.map(|value| {
                let parsed = value.trim().parse::<usize>();
                parsed.map_err(|_| format!("{name} is `{value}`, which is not a number"))
            });
            parsed.transpose()
        };
        let slurm = || -> Result<Option<JobPart>, String> {
            let names = ["SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT"];
            let [Some(id), Some(least), Some(of)] =
                [number_of(names[0])?, number_of(names[1])?, number_of(names[2])?]
            else {
                return Ok(None);
            };
            let step = number_of("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
            Ok(Some(JobPart { number: id.saturating_sub(least) / step + 1, of }))
        };
        let part = match given.map(|given| given.split_once('/')) {
            None => slurm()?.ok_or(
                "which part is not known: give --part K/N, as in --part 3/16; in an array job of Slurm it is taken \
                 from its variables, and in an indexed job of Kubernetes --part /N is enough",
            )?,
            Some(None) => return Err(expected(given)),
            Some(Some(("", of))) => {
                let of = of.parse::<usize>().map_err(|_| expected(given))?;
                let index = number_of("JOB_COMPLETION_INDEX")?.map(|index| index + 1);
                let number = match index {
                    Some(number) => Some(number),
                    None => slurm()?.map(|part| part.number),
                };
                let number = number.ok_or(
                    "--part /N leaves the number to JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID, and neither is set: \
                     give --part K/N",
                )?;
                JobPart { number, of }
            }
            Some(Some((number, of))) => JobPart {
                number: number.parse::<usize>().map_err(|_| expected(given))?,
                of: of.parse::<usize>().map_err(|_| expected(given))?,
            },
        };
        if (1..=part.of).contains(&part.number) {
            return Ok(part);
        }
        Err(format!("part {} of {}: parts are counted from 1 to {}", part.number, part.of, part.of))
    }
}

fn expected(given: Option<&str>) -> String {
    format!("--part: expected K/N or /N, as in 3/16, got `{}`", given.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(given: Option<&str>, variables: &[(&str, &str)]) -> Result<(usize, usize), String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_string())
        };
        JobPart::find(given, variable).map(|part| (part.number, part.of))
    }

    #[test]
    fn a_part_is_given_or_comes_from_the_scheduler() {
        let slurm = |id| {
            [
                ("SLURM_ARRAY_TASK_ID", id),
                ("SLURM_ARRAY_TASK_MIN", "5"),
                ("SLURM_ARRAY_TASK_COUNT", "4"),
            ]
        };
        assert_eq!(find(Some("3/16"), &[]), Ok((3, 16)));
        // What is given counts, wherever the process runs.
        assert_eq!(find(Some("3/16"), &slurm("5")), Ok((3, 16)));
        assert_eq!(find(None, &slurm("5")), Ok((1, 4)));
        assert_eq!(find(None, &slurm("8")), Ok((4, 4)));
        assert_eq!(find(Some("/4"), &slurm("6")), Ok((2, 4)));
        let steps = [&slurm("11")[..], &[("SLURM_ARRAY_TASK_STEP", "2")]].concat();
        assert_eq!(find(None, &steps), Ok((4, 4)));
        assert_eq!(find(Some("/8"), &[("JOB_COMPLETION_INDEX", "0")]), Ok((1, 8)));
        assert_eq!(find(Some("/8"), &[("JOB_COMPLETION_INDEX", "7")]), Ok((8, 8)));
    }

    type Variables<'a> = &'a [(&'a str, &'a str)];

    #[test]
    fn a_part_that_cannot_be_is_refused() {
        let cases: [(Option<&str>, Variables<'_>, &str); 11] = [
            (Some("0/4"), &[], "parts are counted from 1 to 4"),
            (Some("5/4"), &[], "part 5 of 4"),
            (Some("1/0"), &[], "part 1 of 0"),
            (Some("4"), &[], "expected K/N or /N"),
            (Some("a/b"), &[], "got `a/b`"),
            (Some("-1/4"), &[], "got `-1/4`"),
            (Some("/4"), &[], "JOB_COMPLETION_INDEX"),
            (Some("/4"), &[("JOB_COMPLETION_INDEX", "x")], "JOB_COMPLETION_INDEX is `x`"),
            (Some("/4"), &[("JOB_COMPLETION_INDEX", "4")], "part 5 of 4"),
            (None, &[], "give --part K/N"),
            (None, &[("SLURM_ARRAY_TASK_ID", "1")], "give --part K/N"),
        ];
        for (given, variables, told) in cases {
            let error = find(given, variables).unwrap_err();
            assert!(error.contains(told), "no `{told}` in {error}");
        }
    }
}
