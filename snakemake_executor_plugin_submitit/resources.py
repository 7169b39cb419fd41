from dataclasses import dataclass
@dataclass(frozen=True)
class R:
    time: int|None
    mem: str|None
    cpus: int
    nodes: int = 1
    partition: str|None=None
    def sbatch_parameters(self):
        return dict(time=self.time, mem=self.mem, cpus_per_task=self.cpus, nodes=self.nodes, partition=self.partition, wckey=None)
def request_of(rule, resources, threads):
    return R(resources.get("runtime"), f"{resources.get('mem_mb')}M" if resources.get("mem_mb") else None, threads, resources.get("nodes") or 1, resources.get("slurm_partition"))
