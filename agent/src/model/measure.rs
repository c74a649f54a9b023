//! What the model tells of itself, for metrics: numbers that it has anyway.

use crate::kernel::Fill;
use crate::metrics::Measures;

use super::Model;

impl Model {
    pub(super) fn measure(&self) -> Measures {
        let (counts, limits) = (self.policies.index().counts(), self.kernel.limits());
        let mut fills = vec![
            Fill { table: "rules", entries: counts.rules, capacity: limits.rules },
            Fill { table: "prefixes", entries: counts.prefixes, capacity: limits.prefixes },
        ];
        fills.extend(self.kernel.fills());
        let warnings = self.policies.warnings() + self.services.warnings() + self.suspects.all().len();
        Measures {
            node: self.config.node_name.clone(),
            waiting_for: self.waiting_for.clone(),
            endpoints: self.kernel.enforced(),
            selected: counts.selected,
            closed: counts.closed,
            audited: self.policies.audited(),
            policies: counts.policies,
            rule_sets: counts.rule_sets,
            identities: counts.identities,
            service_ports: self.services.index().ports().len(),
            service_ports_refused: self.kernel.refused_services(),
            health_checks: self.services.index().health().len(),
            health_checks_unserved: self.check_problems.all().len(),
            published: self.policies.published(),
            fills,
            errors: self.all_problems().count() - warnings,
            warnings,
            changes: self.changes.clone(),
        }
    }

    /// What is wrong, wherever it comes from.
    pub(super) fn all_problems(&self) -> impl Iterator<Item = &String> {
        let own = [
            self.source_problems.all(),
            self.problems.all(),
            self.check_problems.all(),
            self.leftovers.all(),
            self.suspects.all(),
            self.configuration.problems(),
            self.shared_ports.all(),
            self.exhaustion.all(),
        ];
        let own = own.into_iter().flatten();
        own.chain(self.policies.problems()).chain(self.services.problems())
    }
}
