"""Clauses, procedures and notices, English and Spanish, to be said back to the byte: data, written for this project.

`verbatim_texts` are single ones of some 10 to 40 tokens, `long_texts` runs of them.
"""

from __future__ import annotations

_ENGLISH = """
Either party may cancel this contract with 30 days' written notice.
Part number 7741-KX-09, torque 38 Nm, grease with lithium soap only.
Press and hold both buttons for seven seconds until the green light blinks twice.
Invoices are due within fourteen days of receipt, without deduction.
The deposit is returned in full if the keys reach our office before noon on the last day of the lease.
Do not open the housing while the red lamp is lit.
Warranty claims must name the serial number, the date of purchase and the dealer.
The tenant may keep one cat; dogs need the written consent of all neighbours on the same floor.
Rinse the filter under cold water, let it dry for a full day, and put it back with the arrow pointing upwards.
Orders placed after 15:40 leave the warehouse on the next working day.
Ring the bell at gate 4 and wait for the porter; never walk past the yellow line.
Refunds are paid to the card that was charged, within ten working days, less the cost of carriage.
If the pressure rises above 6.2 bar, close valve B first, then valve D, and inform the shift leader.
Members who resign before 31 March owe half of the yearly fee.
The password is changed every ninety days and has at least twelve characters, one of them a digit.
Store below 25 degrees, away from light, and discard eight weeks after opening.
Claims under 200 euros are settled without an expert's report.
Save the form as "K-17 revised", print two copies, and have both signed by the site manager before work begins.
The licence covers three named users at one address and ends when the subscription ends.
Visitors sign the book, wear the blue badge, and leave cameras at the desk.
"""

_SPANISH = """
El arrendatario devolverá las llaves antes de las diez de la mañana.
Cualquiera de las partes podrá resolver el contrato con un preaviso de treinta días.
No abra la tapa mientras la luz roja esté encendida.
Las facturas se pagan en un plazo de catorce días, sin descuento alguno.
Mantenga pulsados los dos botones durante siete segundos hasta que la luz verde parpadee dos veces.
La garantía no cubre los daños causados por agua de mar.
Enjuague el filtro con agua fría y déjelo secar un día entero antes de volver a colocarlo.
Los pedidos hechos después de las 15:40 salen del almacén el siguiente día hábil.
Si la presión supera 6,2 bar, cierre primero la válvula B y avise al jefe de turno.
El socio que se dé de baja antes del 31 de marzo abonará la mitad de la cuota anual.
Consérvese por debajo de 25 grados y deséchese ocho semanas después de abrirlo.
La fianza se devuelve íntegra si no hay desperfectos.
Toque el timbre de la puerta 4 y espere al portero; no cruce nunca la línea amarilla.
Las reclamaciones inferiores a 200 euros se resuelven sin peritaje.
Guarde el formulario con el nombre «K-17 revisado» e imprima dos copias.
"""


def verbatim_texts() -> list[str]:
    """All of them, English and Spanish in turn as long as there are both."""
    english, spanish = _ENGLISH.strip().splitlines(), _SPANISH.strip().splitlines()
    both = [text for pair in zip(english, spanish, strict=False) for text in pair]
    return both + english[len(spanish) :]


def long_texts(count: int) -> list[str]:
    """`count` texts, each all clauses of one language in an order of its own."""
    found = []
    for index in range(count):
        clauses = (_ENGLISH if index % 2 == 0 else _SPANISH).strip().splitlines()
        turn = (3 * (index // 2)) % len(clauses)
        found.append(" ".join(clauses[turn:] + clauses[:turn]))
    return found
