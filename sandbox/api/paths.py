"""Numbers in paths: as many digits as the database can hold, and nothing else."""

from typing import Annotated

from fastapi import Path
from starlette.convertors import Convertor, register_url_convertor

MOST = 10**18 - 1


class _NumberConvertor(Convertor[int]):
    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("number", _NumberConvertor())

Number = Annotated[int, Path(ge=0, le=MOST)]
